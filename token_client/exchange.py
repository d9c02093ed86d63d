"""One run of the Client's table with one key pair, and who carries out each of its steps."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from carnet import crash
from carnet.exchange import client as step
from carnet.exchange.machine import Action, Event, run
from carnet.token.onetime import OneTimePair
from carnet.wire.messages import Refusal
from token_client.asking import Asking
from token_client.bringing_up import BringingUp
from token_client.burning import Burning
from token_client.means import Means, Wish
from token_client.pending import Pending
from token_client.record import Session


class Exchange:
    """From the choice of a key pair to a tunnel that stands, or to why there is none."""

    def __init__(self, means: Means, wish: Wish, pair: OneTimePair) -> None:
        self._means = means
        self._asking = asking = Asking(means, wish, pair)
        self._tunnel = tunnel = BringingUp(means, asking)
        self._burning = Burning(means.booklet.keys, means.store, means.steps.note)
        self._performers: dict[type[Action], Callable[[Any], Event | None]] = {
            # step 1
            step.SealRequest: asking.seal_request,
            step.KeepPending: asking.keep_pending,
            step.SendRequest: asking.send_request,
            step.SetPairAside: self.set_pair_aside,
            # step 8
            step.OpenAnswer: asking.open_answer,
            # step 9
            step.ConfigureTunnel: tunnel.configure,
            step.InitiateIKE: tunnel.initiate,
            step.RemoveTunnel: tunnel.remove,
            # step 10
            step.ForgetSecrets: tunnel.forget_secrets,
            step.DestroyPair: self.destroy_pair,
            step.SettleOthers: self.settle_others,
            step.DropPending: self.drop_pending,
        }

    @property
    def key_id(self) -> bytes:
        """Which pair it is about."""
        return self._asking.pair.key_id

    @property
    def refusal(self) -> Refusal | None:
        """The Host's sealed no, if that was the answer."""
        return self._asking.refusal

    @property
    def silence(self) -> step.NoAnswer | None:
        """Who did not answer, if nobody did."""
        return self._asking.silence

    @property
    def kept(self) -> bool:
        """Whether the next run could send the same bytes again."""
        return self._asking.kept

    @property
    def session(self) -> Session | None:
        """What is known of the tunnel, as soon as it is configured."""
        return self._tunnel.session

    @property
    def failure(self) -> str:
        """Why no tunnel came of a grant, as a sentence."""
        return self._tunnel.failure

    def start(self) -> step.State:
        """Begin with a fresh request; return the state in which the exchange rests."""
        return self._run(step.PairChosen(self.key_id))

    def resume(self, pending: Pending) -> step.State | None:
        """Go on with a request that an earlier run sent; None if it asked for something else."""
        if not self._asking.resume(pending):
            return None
        return self._run(step.PendingFound(pending.sealed))

    def _run(self, event: Event) -> step.State:
        """Run the table; cut off, leave no tunnel: nobody would watch over it.

        That is by Ctrl-C, or by an output that takes no more. Once it stands, the first
        Ctrl-C waits until it is watched over.
        """
        tunnel = self._tunnel
        try:
            state = run(step.machine(), event, self._perform)
            if state is step.State.ESTABLISHED and tunnel.session is not None:
                self._means.stands(tunnel.session)
            return state  # noqa: TRY300  an interrupt is heard until here
        except (KeyboardInterrupt, OSError) as cut_off:
            if tunnel.session is not None:
                tunnel.remove(step.RemoveTunnel())
            if tunnel.cut and isinstance(cut_off, KeyboardInterrupt):
                raise KeyboardInterrupt(tunnel.cut) from None
            raise

    def _perform(self, action: Action) -> Event | None:
        return self._performers[type(action)](action)

    def destroy_pair(self, _: step.DestroyPair) -> None:
        """Step 10: the burn; it is shown as the last step only where a tunnel stands."""
        with self._means.steps.step(10) if self._tunnel.is_up else nullcontext():
            self._burning.burn(self.key_id)
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
        self._means.store.set_aside(self.key_id)
        crash.reach("client.set-aside")
