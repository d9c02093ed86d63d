"""Steps 9 and 10 carried out: one tunnel, from its grant until it stands, or nothing is left."""

import time

from msgspec.structs import replace

from carnet import crash, interruption
from carnet.errors import AwayError, IKERefusedError, IPsecError, TakenError
from carnet.exchange import client as step
from carnet.exchange.machine import Event
from carnet.ipsec.spec import Role, TunnelSpec, comes_back
from carnet.objectives import Objective
from carnet.tunnel import tunnel_name, tunnel_spec
from carnet.wire.fault import WireError
from carnet.wire.messages import Grant, TunnelingInfo
from token_client import mtu, name_servers
from token_client.asking import Asking
from token_client.beside import goes_on, refuse_grant
from token_client.clock import lifetime_from
from token_client.closing import numbers_of, release, take_down_those_with_its_address
from token_client.granted import believable, refuse_another, refuse_what_is_here
from token_client.means import Means
from token_client.nat import reachable_first
from token_client.record import Known, Session
from token_client.session_states import LeftUnseen, Seen, Stage, State
from token_client.target_clock import Counted, counted
from token_client.unrecorded import unrecorded
from token_client.uptime import boot_id, uptime
from token_client.whereabouts import found

CUT_OFF = "the tunnel that stood was ended, and its key pair opens no other"
"""What an interrupt's half sentence says of a tunnel that nobody would watch over."""
CUT_SHORT = (
    "the tunnel that was coming up was ended, and the next `carnet connect` tells whether its key"
    " pair is lost"
)
"""The same, before this end knew that it stood: at Target it may have."""
_TO_END = (
    "The tunnel to {} that this request led to is to end, and does not come back; run `carnet"
    " connect` again for a new one."
)


class BringingUp:
    """The tunnel that one request was granted; what must be remembered of it is here."""

    def __init__(self, means: Means, asking: Asking) -> None:
        self._means = means
        self._asking = asking
        self._spec: TunnelSpec
        self._counted: Counted
        self.session: Session | None = None
        self.failure = ""
        self.is_up = False
        self.cut = ""
        """What an interrupt says of it, as half a sentence."""

    def configure(self, action: step.ConfigureTunnel) -> Event:
        """Step 9: open the session key, give IPsec the tunnel.

        What this machine knows of its tunnels is written down first, and who is to watch over
        this one waits already. A tunnel that an earlier run brought up, and did not live to say
        so, is taken over, unless it is to end.
        """
        info = action.grant.tunneling_info
        try:
            with self._means.steps.part(9):
                self._refuse_what_is_to_end()
                refuse_another(info, self._asking.request)
                hosts = found(self._means.hosts, self._means.known)
                stands = self._stands()
                if not stands:
                    refuse_what_is_here(info, numbers_of(hosts))
                self._refuse_beside_others(info)
                self._spec = self._agreed(action.grant)
                self.session = self._remember_session(action.grant, hosts, stands=stands)
                self._means.heir.stand_by(self.session)
                crash.reach("client.session-kept")
                if not stands:
                    take_down_those_with_its_address(
                        self._means.others, self._means.sessions, self.session
                    )
                self._means.closing.close(self._name, info, hosts)
                if not stands:
                    self._means.driver.install(self._spec)
        except TakenError as error:
            target = self._asking.request.request_info.target
            return self._failed(goes_on(error, target, self._again(info)), action.grant)
        except (WireError, IPsecError) as error:
            return self._failed(error, action.grant)
        crash.reach("client.configured")
        return step.TunnelConfigured(action.grant)

    def _refuse_what_is_to_end(self) -> None:
        """Leave a session that is to end to whoever goes on with that. Raises IKERefusedError."""
        record = self._means.sessions.find(self._name)
        if record is not None and record.stage.is_yet_to_end:
            raise IKERefusedError(_TO_END.format(record.target))

    def _refuse_beside_others(self, info: TunnelingInfo) -> None:
        """Refuse what could not stand beside this machine's other tunnels. Raises IPsecError."""
        target = self._asking.request.request_info.target
        sessions = self._means.sessions
        others = unrecorded(self._means.driver, sessions, but=(self._name,))
        refuse_grant(info, target, sessions.all(), others, again=self._again(info))

    def _again(self, info: TunnelingInfo) -> int:
        """Return for how many seconds the same answer can be gone on with."""
        return int(info.initiate_within - self._asking.age) if self._asking.kept else 0

    def _agreed(self, grant: Grant) -> TunnelSpec:
        """Return the tunnel that was granted, with the secrets that the session key gives.

        Raises WireError for a session key that is not for this request.
        """
        request = self._asking.request
        info, asked = grant.tunneling_info, request.request_info.lifetime
        opened = self._asking.open_session_key(grant)
        now = time.time()
        behind = believable(self._asking.clock_behind, info.expires, asked, now)
        ends = self._counted = counted(self._asking, info.expires, now, behind)
        return tunnel_spec(
            Role.CLIENT,
            request.request_id,
            replace(
                info,
                target_addresses=reachable_first(info.target_addresses),
                force_udp=info.force_udp or self._means.life.force_udp,
            ),
            opened,
            lifetime_from(now, ends.expires, ends.clock_behind, asked),
            allow_weak=self._means.allow_weak,
            dead_peer_seconds=self._means.life.dead_peer_seconds,
        )

    def _remember_session(self, grant: Grant, hosts: Known, *, stands: bool) -> Session:
        info = grant.tunneling_info
        now, up = time.time(), uptime()
        begun = None if up is None else up - now % 1  # as established_at has whole seconds
        session = Session(
            name=self._name,
            target=self._asking.request.request_info.target,
            user_id=self._asking.request.user_id,
            objective_id=info.objective_id,
            networks=info.networks,
            virtual_address=info.virtual_address,
            target_addresses=info.target_addresses,
            ppk=info.ppk_id is not None,
            established_at=int(now) + self._counted.clock_behind,
            expires=self._counted.expires,
            target_ahead=self._counted.target_ahead,
            dns=info.dns if self._means.life.dns else (),
            mtu=info.mtu,
            clock_behind=self._counted.clock_behind,
            boot=boot_id(),
            begun=begun,
            token_label=self._means.booklet.token.label,
            token_serial=self._means.booklet.token.serial,
            module=self._means.module,
            hosts=self._means.hosts,
            known_hosts=hosts,
            officer_key=self._means.booklet.officer_key.hex(),
            driver=self._means.driver.name,
            block=self._means.closing.made_by(Objective(info.objective_id)),
            stage=Stage(State.STANDING if stands else State.UNSEEN),
        )
        if not self._means.sessions.keep(session):  # that was decided since it was looked at
            raise IKERefusedError(_TO_END.format(session.target))
        return session

    def _stands(self) -> bool:
        """Tell whether an earlier run of this very request brought the tunnel up."""
        if self._asking.resumed is None:
            return False
        live = self._means.driver.status()
        return any(tunnel.name == self._name and tunnel.established for tunnel in live)

    def initiate(self, action: step.InitiateIKE) -> Event:
        """Step 9: the IKE negotiation."""
        driver = self._means.driver
        try:
            with self._means.steps.step(9):
                stands = self._stands()
                self.cut = CUT_OFF if stands else CUT_SHORT
                if stands:
                    driver.confirm(self._spec)
                else:
                    driver.up(self._spec)
        except IPsecError as error:
            return self._failed(error, action.grant)
        crash.reach("client.established")
        self.is_up, self.cut = True, CUT_OFF
        self._remember_that_it_stands()
        interruption.hold()
        self._fit_packets()
        self._use_name_servers(action.grant.tunneling_info.dns)
        return step.TunnelUp(action.grant)

    def _remember_that_it_stands(self) -> None:
        if self.session is not None:
            self.session = self.session.after(Seen())
            self._means.sessions.change(self._name, Seen())

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

    def remove(self, _: step.RemoveTunnel) -> None:
        """Leave nothing half configured."""
        sessions = self._means.sessions
        try:
            self._means.driver.down(self._name)
        except AwayError as error:
            self.cut = ""  # nothing was ended
            self._leave(error)
            return
        except IPsecError as error:
            if not self._will_be_told(error):
                self._means.steps.note(error.sentence)
        crash.reach("client.tunnel-removed")
        try:
            release(sessions, self._name)
            self._means.heir.dismiss()
        except IPsecError as error:
            self._means.steps.note(error.sentence)

    def _leave(self, error: AwayError) -> None:
        """Leave to an agent what may come up as soon as there is an answer, and say so."""
        session = self._means.sessions.change(self._name, LeftUnseen())
        left = session is not None and self._means.heir.begin_if_it_can(session)
        note = "the tunnel may stand, and `carnet disconnect` ends it then"
        why = "" if self._will_be_told(error) else f" ({error.sentence.rstrip('.')})"
        watch = "; the agent of this machine watches over it" if left else ""
        self._means.steps.note(f"{note}{why}{watch}")

    def _will_be_told(self, error: IPsecError) -> bool:
        """Whether it is why there is no tunnel, which is what the command says last."""
        return error.sentence == self.failure

    def _failed(self, error: WireError | IPsecError, grant: Grant) -> Event:
        """Tell whether the same answer, fetched again, could still lead to a tunnel.

        The first failure leaves that open. Later, Target waits only for as long as it
        said, and not if it has said no.
        """
        self.failure = str(error)
        resumed = self._asking.resumed
        if resumed is None:
            return step.TunnelFailed(self.failure)
        over = resumed.age >= grant.tunneling_info.initiate_within
        if over or isinstance(error, IKERefusedError | WireError):
            return step.TunnelHopeless(self.failure)
        return step.TunnelFailed(self.failure)

    @property
    def _name(self) -> str:
        return tunnel_name(self._asking.request.request_id)
