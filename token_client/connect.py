"""`carnet connect`: from a token and a wish to a tunnel, or to one plain sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import msgspec
from msgspec.structs import replace

from carnet.errors import (
    CarnetError,
    IPsecError,
    RefusedError,
    TokenError,
    UnreachableError,
)
from carnet.exchange.client import State
from carnet.ipsec.driver import Capabilities, Driver
from carnet.token.finding import find_module
from carnet.wire.messages import ClientDriver, RequestInfo
from token_client import choosing, name_servers
from token_client.booklet import Booklet
from token_client.by_record import ByRecord
from token_client.closing import end_session
from token_client.config import ClientConfig
from token_client.exchange import Exchange
from token_client.heir import Heir
from token_client.host import WANTS_LOGIN, HostSender, NotYetError
from token_client.leaving import may_be_kept
from token_client.means import Life, Means, Wish
from token_client.memory import memory_directory
from token_client.pending import PendingStore, asked_with_here
from token_client.preflight import closing_for
from token_client.record import Session
from token_client.sessions import SessionStore
from token_client.steps import Steps
from token_client.whereabouts import known_here
from token_client.whole_end import raise_unless_gone

_NEXT_PAIR = frozenset({State.SET_ASIDE, State.GIVEN_UP})
MAX_SET_ASIDE = 3
"""Key pairs that one run sets aside at most: whoever forges refusals collects requests."""


class Connected(msgspec.Struct, frozen=True):
    """A tunnel that stands."""

    session: Session
    pairs_left: int | None
    """None where the token does not tell."""
    milliseconds: dict[int, float]

    @property
    def seconds(self) -> int:
        """How long the session lives."""
        return max(0, self.session.expires - self.session.established_at)


def connect(
    booklet: Booklet,
    driver: Driver,
    capabilities: Capabilities,
    wish: Wish,
    config: ClientConfig,
    steps: Steps,
    *,
    stands: Callable[[Session], None],
    heir: Heir,
    nat: bool | None = None,
    allow_weak: bool = False,
) -> Connected:
    """Open a tunnel with the next key pair, or go on where an earlier run stopped.

    `stands` is called as soon as it does; `heir` waits to watch over it from before on; `nat` is
    what check_nat() found; `allow_weak` accepts suites for benchmarks. Raises
    NoKeyPairLeftError, RefusedError, IPsecError, UnreachableError.
    """
    directory = memory_directory()
    hosts, known = config.hosts or booklet.cover.hosts, known_here()
    means = Means(
        booklet=booklet,
        driver=driver,
        others=ByRecord(config.drivers, driver),
        make_info=_info_maker(capabilities, nat),
        sender=HostSender(hosts, config.patience, partial(_tell_of_silence, steps), known),
        store=PendingStore(directory, booklet.token, booklet.vault, wish.target),
        sessions=SessionStore(directory),
        steps=steps,
        life=_life_of(config),
        closing=closing_for(capabilities, booklet, config),
        hosts=hosts,
        known=known,
        module=str(find_module(config.module)) if config.module else None,
        stands=stands,
        heir=heir,
        allow_weak=allow_weak,
    )
    stay = name_servers.restore_those_of_a_lost_one(driver)
    if stay is not None:
        steps.note(stay)
    with _keeping_pairs_left(means):
        exchange, state = _exchange(means, wish)
    if state is not State.ESTABLISHED or exchange.session is None:
        raise _explain(exchange, state, wish)
    _replace_older(means, exchange.session)
    left = _pairs_left(means)
    return Connected(replace(exchange.session, pairs_left=left), left, steps.milliseconds)


def _tell_of_silence(steps: Steps, error: NotYetError) -> None:
    login = "; log in to this network" if error.code == WANTS_LOGIN else ""
    steps.note(f"no answer yet ({error.detail}{login}), trying again")


def _life_of(config: ClientConfig) -> Life:
    return Life(
        resume=config.resume,
        dead_peer_seconds=config.dead_peer_seconds,
        force_udp=config.force_udp,
        dns=config.dns,
    )


@contextmanager
def _keeping_pairs_left(means: Means) -> Iterator[None]:
    """Have `carnet status` know how many pairs are left, also where no tunnel comes of it."""
    try:
        yield
    finally:
        left = _pairs_left(means)
        if left is not None:
            with suppress(OSError):
                means.sessions.keep_pairs_left(means.booklet.token, left)


def _pairs_left(means: Means) -> int | None:
    """Return how many there are; no reason to fail, where the token does not tell."""
    try:
        taken = asked_with_here(memory_directory(), means.booklet.token)
        return sum(pair.key_id not in taken for pair in choosing.usable(means))
    except TokenError:
        return None


def _replace_older(means: Means, session: Session) -> None:
    """End older tunnels to the same Target: the new one takes their place."""
    for older in means.sessions.all():
        if older.target == session.target and older.name != session.name:
            try:
                heard = end_session(means.others, means.sessions, older.name, raise_unless_gone)
            except IPsecError as error:
                means.steps.note(f"an older tunnel is left: {error.sentence}")
            else:
                kept = may_be_kept(older, heard)
                if kept is not None:
                    means.steps.note(f"the older tunnel was ended here: {kept}")


def _exchange(means: Means, wish: Wish) -> tuple[Exchange, State]:
    """Run exchanges until one rests in a state that is not for the next pair to go on from."""
    resumed = _resume(means, wish)
    if resumed and resumed[1] not in _NEXT_PAIR:
        return resumed
    if resumed:
        means.steps.note("the earlier request leads nowhere any more, taking the next key pair")
    tried = {resumed[0].key_id} if resumed else set()
    refused = {resumed[0].key_id} if resumed and resumed[1] is State.SET_ASIDE else set()
    while len(tried) < MAX_SET_ASIDE and (pair := choosing.next_pair(means, tried)):
        tried.add(pair.key_id)
        exchange = Exchange(means, wish, pair)
        state = exchange.start()
        if state is not State.SET_ASIDE:
            return exchange, state
        refused.add(pair.key_id)
        means.steps.note("Host gave an unsealed no, which proves nothing: key pair set aside")
    raise choosing.no_pair(means, refused)


def _resume(means: Means, wish: Wish) -> tuple[Exchange, State] | None:
    pending = means.store.find()
    _tell_what_was_dropped(means)
    if pending is None:
        return None
    pair = next(p for p in means.booklet.keys.pairs() if p.key_id == pending.key_id)
    exchange = Exchange(means, wish, pair)
    state = exchange.resume(pending)
    if state is None:
        means.steps.note(
            f"what was kept of an earlier request, for another tunnel to {wish.target} than this,"
            " was dropped: its key pair may be spent, and is taken after all others"
        )
        means.store.set_aside(pending.key_id)
        means.store.drop()
        return None
    return exchange, state


def _tell_what_was_dropped(means: Means) -> None:
    """Say so of a request that cannot be read, unless its pair is burned: then it was settled."""
    dropped = means.store.unreadable
    on_token = {pair.key_id for pair in means.booklet.keys.pairs()} if dropped else set()
    if dropped is not None and (not dropped or dropped & on_token):
        means.steps.note(
            "what was kept of an earlier request is damaged, or by an older version, and was"
            " dropped: its key pair may be spent, which the Host's next answer says; `carnet"
            " tokens` shows how many are left"
        )


def _info_maker(
    capabilities: Capabilities, nat: bool | None
) -> Callable[[Wish, bytes], RequestInfo]:
    driver = ClientDriver(
        name=capabilities.driver,
        ike_versions=capabilities.ike_versions,
        objectives=tuple(int(objective) for objective in capabilities.objectives),
        modes=tuple(str(mode) for mode in capabilities.modes),
        ppk=capabilities.ppk,
    )

    def make_info(wish: Wish, ephemeral_key: bytes) -> RequestInfo:
        return RequestInfo(
            target=wish.target,
            networks=wish.networks,
            lifetime=wish.lifetime,
            drivers=(driver,),
            nat=nat,
            ephemeral_key=ephemeral_key,
        )

    return make_info


_SILENCE = {
    "host-unreachable": "No Host answers ({detail}); check the network",
    WANTS_LOGIN: "This network wants a login first ({detail}); log in to it with a browser",
    "host-busy": "The Host has too much to do; wait a moment",
    "host-not-ready": "The Host is busy with this request, or in trouble with its own token or "
    "database (tell its operator if that lasts); wait a moment",
    "target-unreachable": "The Host cannot reach Target {target}; wait a moment",
    "target-not-ready": "Target {target} cannot prepare a tunnel just now; wait a moment",
}


def _explain(exchange: Exchange, state: State, wish: Wish) -> CarnetError:
    """Return the one sentence for an exchange that rests without a tunnel."""
    if state is State.REFUSED and exchange.refusal:
        refusal = exchange.refusal
        return RefusedError(f"Refused ({refusal.code}): {refusal.reason}")
    if state is State.SUSPENDED and exchange.silence:
        silence = exchange.silence
        what = _SILENCE[silence.code].format(detail=silence.detail, target=wish.target)
        if not exchange.kept:
            return UnreachableError(
                f"{what}, then run `carnet connect` again: nothing here, or no key of the token, "
                f"could keep this request, so if the Host has it a further key pair is used."
            )
        return UnreachableError(
            f"{what}, then run `carnet connect` again within ten minutes: the same request is "
            f"sent again, and no further key pair is used."
        )
    return IPsecError(exchange.failure)
