"""Carries out what the Client's table asks for, with one key pair."""

import secrets
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from msgspec.structs import replace

from carnet import crash, interruption
from carnet.errors import AwayError, IKERefusedError, IPsecError, UsageError
from carnet.exchange import client as step
from carnet.exchange.machine import Action, Event, run
from carnet.ipsec.spec import Role, TunnelSpec, comes_back
from carnet.objectives import Objective
from carnet.token.onetime import OneTimePair
from carnet.tunnel import tunnel_name, tunnel_spec
from carnet.wire import cbor
from carnet.wire.envelope import Envelope, parse_envelope
from carnet.wire.fault import WireError
from carnet.wire.messages import Grant, Refusal, Request
from carnet.wire.session_key import EphemeralKey, SessionBinding
from token_client import mtu, name_servers
from token_client.burning import Burning
from token_client.clock import lifetime_from
from token_client.closing import numbers_of, release, take_down_those_with_its_address
from token_client.granted import believable, refuse_another, refuse_what_is_here
from token_client.means import Means, Wish
from token_client.nat import reachable_first
from token_client.pending import Pending
from token_client.sessions import Session
from token_client.steps import OPENING
from token_client.uptime import boot_id, uptime


class Exchange:
    """One run of the Client's table with one key pair; what it must remember is here."""

    def __init__(self, means: Means, wish: Wish, pair: OneTimePair) -> None:
        self._means = means
        self._wish = wish
        self._pair = pair
        self._messages = means.booklet.messages_of(pair)
        self._sealed: bytes
        self._evidence = b""
        self._envelope: Envelope
        self._request: Request
        self._ephemeral: EphemeralKey
        self._spec: TunnelSpec
        self._pending: Pending | None = None
        self.refusal: Refusal | None = None
        self.session: Session | None = None
        self.silence: step.NoAnswer | None = None
        self.failure = ""
        self.kept = True
        """Whether the next run could send the same bytes again."""
        self._up = False
        self._cut = ""
        """What an interrupt says of it, as half a sentence."""
        self._clock_behind = 0
        self._burning = Burning(means.booklet.keys, means.store, means.steps.note)

    @property
    def key_id(self) -> bytes:
        """Which pair it is about."""
        return self._pair.key_id

    def start(self) -> step.State:
        """Begin with a fresh request; return the state in which the exchange rests."""
        return self._run(step.PairChosen(self._pair.key_id))

    def resume(self, pending: Pending) -> step.State | None:
        """Go on with a request that an earlier run sent; None if it asked for something else."""
        self._pending = pending
        self._remember(pending.sealed, pending.ephemeral)
        request = self._messages.read_again(pending)
        if not self._wish.is_of(request):
            return None
        self._request = request
        return self._run(step.PendingFound(pending.sealed))

    def _run(self, event: Event) -> step.State:
        """Run the table; cut off, leave no tunnel: nobody would watch over it.

        That is by Ctrl-C, or by an output that takes no more. Once it stands, the first
        Ctrl-C waits until it is watched over.
        """
        try:
            state = run(step.machine(), event, self._perform)
            if state is step.State.ESTABLISHED and self.session is not None:
                self._means.stands(self.session)
            return state  # noqa: TRY300  an interrupt is heard until here
        except (KeyboardInterrupt, OSError) as cut_off:
            if self.session is not None:
                self.remove_tunnel(step.RemoveTunnel())
            if self._cut and isinstance(cut_off, KeyboardInterrupt):
                raise KeyboardInterrupt(self._cut) from None
            raise

    def _perform(self, action: Action) -> Event | None:
        return _PERFORMERS[type(action)](self, action)

    def _remember(self, sealed: bytes, ephemeral: EphemeralKey) -> None:
        self._sealed, self._ephemeral = sealed, ephemeral
        self._envelope = parse_envelope(sealed)

    def seal_request(self, _: step.SealRequest) -> Event:
        """Step 1: sign on the token, and seal."""
        with self._means.steps.step(1):
            ephemeral = EphemeralKey.generate()
            self._request = Request(
                request_id=secrets.token_bytes(16),
                user_id=self._means.booklet.cover.user_id,
                objective_id=self._wish.objective_id,
                request_info=self._means.make_info(self._wish, ephemeral.public),
            )
            _check_request(self._request)
            sealed = self._messages.seal(self._request)
            self._evidence = sealed.evidence
            self._remember(sealed.data, ephemeral)
        return step.RequestSealed(sealed.data)

    def keep_pending(self, action: step.KeepPending) -> Event:
        """Step 1: keep the bytes, so that a lost answer costs no key pair."""
        pending = Pending(self._pair.key_id, action.sealed, self._ephemeral, self._evidence)
        self.kept = self._means.store.keep(pending)
        crash.reach("client.prepared")
        return step.PendingKept(action.sealed)

    def send_request(self, action: step.SendRequest) -> Event:
        """Step 1: send until an answer comes; steps 2 to 7 happen elsewhere."""
        started = time.perf_counter()
        delivery = self._means.sender.send(action.sealed)
        if isinstance(delivery.event, step.NoAnswer):
            self.silence = delivery.event
        elif isinstance(delivery.event, step.AnswerArrived):
            self._means.steps.answered(delivery.timing, time.perf_counter() - started)
            self._clock_behind = delivery.clock_behind
        return delivery.event

    def open_answer(self, action: step.OpenAnswer) -> Event:
        """Step 8: only the real Host can have sealed and signed this."""
        crash.reach("client.answered")
        try:
            with self._means.steps.part(OPENING):
                response = self._messages.open(action.answer, self._envelope, self._ephemeral)
        except WireError as error:
            self._means.sender.distrust(str(error))
            return step.AnswerFalse(self._sealed)
        if response.request_id != self._request.request_id:
            self._means.sender.distrust("it answers another request")
            return step.AnswerFalse(self._sealed)
        self._means.steps.opened(granted=isinstance(response, Grant))
        crash.reach("client.opened")
        if isinstance(response, Grant):
            return step.Granted(response)
        self.refusal = response
        return step.Refused(response)

    def configure_tunnel(self, action: step.ConfigureTunnel) -> Event:
        """Step 9: open the session key, give IPsec the tunnel.

        What this machine knows of its tunnels is written down first. A tunnel that an
        earlier run brought up, and did not live to say so, is taken over.
        """
        info = action.grant.tunneling_info
        try:
            with self._means.steps.part(9):
                refuse_another(info, self._request)
                stands = self._stands()
                if not stands:
                    refuse_what_is_here(info, numbers_of(self._means.hosts))
                self._spec = self._agreed(action.grant)
                self.session = self._remember_session(action.grant)
                crash.reach("client.session-kept")
                if not stands:
                    take_down_those_with_its_address(
                        self._means.driver, self._means.sessions, self.session
                    )
                self._means.closing.close(self._name, info)
                if not stands:
                    self._means.driver.install(self._spec)
        except (WireError, IPsecError) as error:
            return self._failed(error, action.grant)
        crash.reach("client.configured")
        return step.TunnelConfigured(action.grant)

    def _agreed(self, grant: Grant) -> TunnelSpec:
        """Return the tunnel that was granted, with the secrets that the session key gives.

        Raises WireError for a session key that is not for this request.
        """
        info, asked = grant.tunneling_info, self._request.request_info.lifetime
        opened = self._ephemeral.open(grant.session_key, self._binding())
        now = time.time()
        self._clock_behind = believable(self._clock_behind, info.expires, asked, now)
        return tunnel_spec(
            Role.CLIENT,
            self._request.request_id,
            replace(
                info,
                target_addresses=reachable_first(info.target_addresses),
                force_udp=info.force_udp or self._means.life.force_udp,
            ),
            opened,
            lifetime_from(now, info.expires, self._clock_behind, asked),
            allow_weak=self._means.allow_weak,
            dead_peer_seconds=self._means.life.dead_peer_seconds,
        )

    def _remember_session(self, grant: Grant) -> Session:
        info = grant.tunneling_info
        now, up = time.time(), uptime()
        begun = None if up is None else up - now % 1  # as established_at has whole seconds
        session = Session(
            name=self._name,
            target=self._wish.target,
            user_id=self._request.user_id,
            objective_id=info.objective_id,
            networks=info.networks,
            virtual_address=info.virtual_address,
            target_addresses=info.target_addresses,
            ppk=info.ppk_id is not None,
            established_at=int(now) + self._clock_behind,
            expires=info.expires,
            dns=info.dns if self._means.life.dns else (),
            mtu=info.mtu,
            clock_behind=self._clock_behind,
            boot=boot_id(),
            begun=begun,
            token_label=self._means.booklet.token.label,
            token_serial=self._means.booklet.token.serial,
            module=self._means.module,
            hosts=self._means.hosts,
            officer_key=self._means.booklet.officer_key.hex(),
            block=self._means.closing.made_by(Objective(info.objective_id)),
        )
        self._means.sessions.keep(session)
        return session

    def _stands(self) -> bool:
        """Tell whether an earlier run of this very request brought the tunnel up."""
        if self._pending is None:
            return False
        live = self._means.driver.status()
        return any(tunnel.name == self._name and tunnel.established for tunnel in live)

    def initiate(self, action: step.InitiateIKE) -> Event:
        """Step 9: the IKE negotiation."""
        driver = self._means.driver
        try:
            with self._means.steps.step(9):
                stands = self._stands()
                self._cut = CUT_OFF if stands else CUT_SHORT
                if stands:
                    driver.confirm(self._spec)
                else:
                    driver.up(self._spec)
        except IPsecError as error:
            return self._failed(error, action.grant)
        crash.reach("client.established")
        self._up, self._cut = True, CUT_OFF
        interruption.hold()
        self._fit_packets()
        self._use_name_servers(action.grant.tunneling_info.dns)
        return step.TunnelUp(action.grant)

    def _fit_packets(self) -> None:
        try:
            if self.session is not None:
                mtu.fit(self.session)
        except IPsecError as error:
            self._means.steps.note(error.sentence)

    def _use_name_servers(self, servers: tuple[str, ...]) -> None:
        if not servers or not self._means.life.dns:
            return
        trouble = name_servers.use(self._name, servers)
        if trouble is not None:
            self._means.steps.note(f"the tunnel's name servers are not used ({trouble})")

    def forget_secrets(self, _: step.ForgetSecrets) -> None:
        """Step 10: the SA needs the pre-shared keys no more.

        Where the tunnel may come back, they are needed until the session ends.
        """
        driver = self._means.driver
        try:
            kept = self._means.life.resume and driver.resumes
            if not (kept and comes_back(self._spec.objective, self._spec.ike_version)):
                driver.forget_secrets(self._name)
        except IPsecError as error:
            # The tunnel stands: who watches over it is still to come, and ends it with them.
            self._means.steps.note(
                f"the tunnel's secrets may stay in the IPsec daemon until it ends"
                f" ({error.sentence.rstrip('.')})"
            )
        crash.reach("client.secrets-forgotten")

    def destroy_pair(self, _: step.DestroyPair) -> None:
        """Step 10: the burn; it is shown as the last step only where a tunnel stands."""
        with self._means.steps.step(10) if self._up else nullcontext():
            self._burning.burn(self._pair.key_id)
        crash.reach("client.burned")

    def settle_others(self, action: step.SettleOthers) -> None:
        """Burn what the Host says is invalid; what was set aside and is not, is usable again."""
        self._burning.burn_listed(action.invalid_pairs)
        crash.reach("client.others-burned")
        self._burning.settle()

    def drop_pending(self, _: step.DropPending) -> None:
        """Forget the request: its exchange is over."""
        self._means.store.drop()
        crash.reach("client.done")

    def set_pair_aside(self, _: step.SetPairAside) -> None:
        """Leave the pair on the token: an unsealed no proves nothing."""
        self._means.store.set_aside(self._pair.key_id)
        crash.reach("client.set-aside")

    def remove_tunnel(self, _: step.RemoveTunnel) -> None:
        """Leave nothing half configured."""
        sessions = self._means.sessions
        try:
            self._means.driver.down(self._name)
        except AwayError as error:
            self._cut = ""  # nothing was ended
            note = "the tunnel may stand, and `carnet disconnect` ends it then"
            why = "" if self._will_be_told(error) else f" ({error.sentence.rstrip('.')})"
            self._means.steps.note(f"{note}{why}")
            return
        except IPsecError as error:
            if not self._will_be_told(error):
                self._means.steps.note(error.sentence)
        crash.reach("client.tunnel-removed")
        try:
            release(sessions, self._name)
        except IPsecError as error:
            self._means.steps.note(error.sentence)

    def _will_be_told(self, error: IPsecError) -> bool:
        """Whether it is why there is no tunnel, which is what the command says last."""
        return error.sentence == self.failure

    def _failed(self, error: WireError | IPsecError, grant: Grant) -> Event:
        """Tell whether the same answer, fetched again, could still lead to a tunnel.

        The first failure leaves that open. Later, Target waits only for as long as it
        said, and not if it has said no.
        """
        self.failure = str(error)
        if self._pending is None:
            return step.TunnelFailed(self.failure)
        over = self._pending.age >= grant.tunneling_info.initiate_within
        if over or isinstance(error, IKERefusedError | WireError):
            return step.TunnelHopeless(self.failure)
        return step.TunnelFailed(self.failure)

    @property
    def _name(self) -> str:
        return tunnel_name(self._request.request_id)

    def _binding(self) -> SessionBinding:
        return SessionBinding(
            request_id=self._request.request_id,
            user_id=self._request.user_id,
            target=self._request.request_info.target,
            objective_id=self._request.objective_id,
        )


CUT_OFF = "the tunnel that stood was ended, and its key pair opens no other"
"""What an interrupt's half sentence says of a tunnel that nobody would watch over."""
CUT_SHORT = (
    "the tunnel that was coming up was ended, and the next `carnet connect` tells whether its key"
    " pair is lost"
)
"""The same, before this end knew that it stood: at Target it may have."""


def _check_request(request: Request) -> None:
    """Refuse here what Host would refuse without a word, before anything is sent."""
    try:
        cbor.unpack(cbor.pack(request), Request)
    except WireError as error:
        raise UsageError(f"This cannot be asked for ({error.detail}); ask for less.") from error


_PERFORMERS: dict[type[Action], Callable[[Exchange, Any], Event | None]] = {
    step.SealRequest: Exchange.seal_request,
    step.KeepPending: Exchange.keep_pending,
    step.SendRequest: Exchange.send_request,
    step.OpenAnswer: Exchange.open_answer,
    step.ConfigureTunnel: Exchange.configure_tunnel,
    step.InitiateIKE: Exchange.initiate,
    step.ForgetSecrets: Exchange.forget_secrets,
    step.DestroyPair: Exchange.destroy_pair,
    step.SettleOthers: Exchange.settle_others,
    step.DropPending: Exchange.drop_pending,
    step.SetPairAside: Exchange.set_pair_aside,
    step.RemoveTunnel: Exchange.remove_tunnel,
}
