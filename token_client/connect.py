"""`carnet connect`: from a token and a wish to a tunnel, or to one plain sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from msgspec.structs import replace

from carnet.errors import (
    CarnetError,
    IPsecError,
    NoKeyPairLeftError,
    RefusedError,
    TokenError,
    UnreachableError,
    UsageError,
)
from carnet.exchange.client import State
from carnet.ipsec.driver import Capabilities, Driver
from carnet.ipsec.inside import inside
from carnet.ipsec.spec import Mode, crosses_nat
from carnet.objectives import Objective
from carnet.token.onetime import OneTimePair
from carnet.wire.messages import ClientDriver, RequestInfo
from token_client.agent import Exchange
from token_client.booklet import Booklet
from token_client.closing import Closing, end_session
from token_client.config import ClientConfig
from token_client.host import HostSender, NotYetError
from token_client.means import Life, Means, Wish
from token_client.memory import memory_directory
from token_client.nat import behind_nat
from token_client.pending import PendingStore
from token_client.sessions import Session, SessionStore
from token_client.steps import Steps

_NEXT_PAIR = frozenset({State.SET_ASIDE, State.GIVEN_UP})
MAX_SET_ASIDE = 3
"""Key pairs that one run sets aside at most: whoever forges refusals collects requests."""


@dataclass(frozen=True)
class Connected:
    """A tunnel that stands."""

    session: Session
    pairs_left: int | None
    """None where the token does not tell."""
    milliseconds: dict[int, float]

    @property
    def seconds(self) -> int:
        """How long the session lives."""
        return max(0, self.session.expires - self.session.established_at)


def plan(
    booklet: Booklet, capabilities: Capabilities, wish: Wish, config: ClientConfig
) -> dict[str, Any]:
    """Return what connect() would ask for, and with which key pair."""
    usable = booklet.usable()
    return {
        "user_id": booklet.cover.user_id,
        "hosts": config.hosts or booklet.cover.hosts,
        "target": wish.target,
        "objective": Objective(wish.objective_id).label,
        "networks": wish.networks,
        "mode": str(_mode(wish)),
        "lifetime": wish.lifetime,
        "driver": f"{capabilities.driver} {capabilities.version}",
        "key_id": usable[0].key_id.hex() if usable else None,
        "pairs_left": len(usable),
    }


def _mode(wish: Wish) -> Mode:
    """Return the mode that Target will choose, but where she may have nothing but Target."""
    alone = wish.networks == () or wish.objective_id == Objective.NATIVE
    return Mode.TRANSPORT if alone else Mode.TUNNEL


def check_means(
    driver: Driver, objective: Objective, networks: tuple[str, ...] | None = None
) -> Capabilities:
    """Refuse, before a key pair is spent, what this machine cannot carry.

    `networks` are those wanted: none for Target alone, in transport mode. Raises
    IPsecError: no daemon, or one that cannot carry it; UsageError where no tunnel does.
    """
    if objective is not Objective.NATIVE:
        _check_versions(networks or ())
    capabilities = driver.capabilities()
    if objective not in capabilities.objectives:
        able = ", ".join(o.label for o in capabilities.objectives) or "nothing"
        raise IPsecError(
            f"{driver.name} on this machine cannot carry {objective.label}, only {able}; "
            f"choose another objective, or another machine."
        )
    if networks == () and Mode.TRANSPORT not in capabilities.modes:
        raise IPsecError(
            f"{driver.name} on this machine cannot carry transport mode; "
            f"ask for the networks behind Target, or use another machine."
        )
    if capabilities.single_network and objective is not Objective.NATIVE:
        _check_single(driver, networks)
    return capabilities


def _check_versions(networks: tuple[str, ...]) -> None:
    if len({":" in network for network in networks}) > 1:
        raise UsageError(
            "One tunnel carries IPv4 or IPv6 inside, not both; name networks of one of them, and "
            "have a second tunnel for the other."
        )


def _check_single(driver: Driver, networks: tuple[str, ...] | None) -> None:
    if networks is None or len(networks) > 1:
        raise IPsecError(
            f"A tunnel of {driver.name} leads to one network only; name it with --network, or "
            f"--transport for Target alone."
        )


def check_nat(booklet: Booklet, wish: Wish, config: ClientConfig) -> bool | None:
    """Refuse, before a key pair is spent, what does not get through the NAT before it.

    Returns whether there is NAT, as far as that is known; a Host is asked only where it
    matters. Raises IPsecError.
    """
    objective, mode = Objective(wish.objective_id), _mode(wish)
    if crosses_nat(objective, mode):
        return config.nat
    nat = config.nat
    if nat is None:
        nat = behind_nat(config.hosts or booklet.cover.hosts)
    if nat:
        raise IPsecError(
            f"This machine is behind NAT (the Host sees another address), and {objective.label} "
            f"in {mode} mode does not get through; choose esp to the networks behind Target, or "
            f"another network."
        )
    return nat


def check_block(capabilities: Capabilities, objective: Objective, config: ClientConfig) -> None:
    """Refuse, before a key pair is spent, where nothing could hold packets back.

    Raises IPsecError.
    """
    Closing(capabilities, (), wanted=config.block).check(objective)


def closing_for(capabilities: Capabilities, booklet: Booklet, config: ClientConfig) -> Closing:
    """Return what holds packets back that are meant for a tunnel of this booklet's."""
    return Closing(capabilities, config.hosts or booklet.cover.hosts, wanted=config.block)


def choose_target(booklet: Booklet, named: str | None) -> str:
    """Return the Target meant; raises UsageError if the cover knows none of that name."""
    targets = booklet.cover.targets
    if named is None:
        return targets[0]
    if named not in targets:
        raise UsageError(f"The token knows no Target {named}; choose one of {', '.join(targets)}.")
    return named


def connect(
    booklet: Booklet,
    driver: Driver,
    capabilities: Capabilities,
    wish: Wish,
    config: ClientConfig,
    steps: Steps,
    *,
    stands: Callable[[Session], None],
    nat: bool | None = None,
    allow_weak: bool = False,
) -> Connected:
    """Open a tunnel with the next key pair, or go on where an earlier run stopped.

    `stands` is called as soon as it does; `nat` is what check_nat() found; `allow_weak`
    accepts suites for benchmarks. Raises NoKeyPairLeftError, RefusedError, IPsecError,
    UnreachableError.
    """
    directory = memory_directory()
    hosts = config.hosts or booklet.cover.hosts
    means = Means(
        booklet=booklet,
        driver=driver,
        make_info=_info_maker(capabilities, nat),
        sender=HostSender(hosts, config.patience, partial(_tell_of_silence, steps)),
        store=PendingStore(directory, booklet.serial, booklet.vault),
        sessions=SessionStore(directory),
        steps=steps,
        life=_life_of(config),
        closing=closing_for(capabilities, booklet, config),
        hosts=hosts,
        stands=stands,
        allow_weak=allow_weak,
    )
    _restore_name_servers(driver)
    with _keeping_pairs_left(means):
        exchange, state = _exchange(means, wish)
    if state is not State.ESTABLISHED or exchange.session is None:
        raise _explain(exchange, state, wish)
    _replace_older(means, exchange.session)
    left = _pairs_left(means)
    return Connected(replace(exchange.session, pairs_left=left), left, steps.milliseconds)


def _tell_of_silence(steps: Steps, error: NotYetError) -> None:
    steps.note(f"no answer yet ({error.detail}), trying again")


def _life_of(config: ClientConfig) -> Life:
    return Life(
        resume=config.resume,
        dead_peer_seconds=config.dead_peer_seconds,
        force_udp=config.force_udp,
        dns=config.dns,
    )


def _restore_name_servers(driver: Driver) -> None:
    """Take away those of a tunnel that is down: the Host's name may have to be looked up."""
    name = inside().whose_servers()
    if name is not None and all(live.name != name for live in driver.status()):
        inside().restore_servers(name)


def _usable(means: Means) -> list[OneTimePair]:
    """Return the pairs in order of use that have not expired, and are not known to be spent."""
    spent = means.store.spent()
    return [pair for pair in means.booklet.usable() if pair.key_id not in spent]


@contextmanager
def _keeping_pairs_left(means: Means) -> Iterator[None]:
    """Have `carnet status` know how many pairs are left, also where no tunnel comes of it."""
    try:
        yield
    finally:
        left = _pairs_left(means)
        if left is not None:
            with suppress(OSError):
                means.sessions.keep_pairs_left(means.booklet.serial, left)


def _pairs_left(means: Means) -> int | None:
    """Return how many there are; no reason to fail, where the token does not tell."""
    try:
        return len(_usable(means))
    except TokenError:
        return None


def _replace_older(means: Means, session: Session) -> None:
    """End older tunnels to the same Target: the new one takes their place."""
    for older in means.sessions.all():
        if older.target == session.target and older.name != session.name:
            try:
                end_session(means.driver, means.sessions, older.name)
            except IPsecError as error:
                means.steps.note(f"an older tunnel is left: {error.sentence}")


def _exchange(means: Means, wish: Wish) -> tuple[Exchange, State]:
    """Run exchanges until one rests in a state that is not for the next pair to go on from."""
    resumed = _resume(means, wish)
    if resumed and resumed[1] not in _NEXT_PAIR:
        return resumed
    if resumed:
        means.steps.note("the earlier request leads nowhere any more, taking the next key pair")
    tried = {resumed[0].key_id} if resumed else set()
    while len(tried) < MAX_SET_ASIDE:
        pair = _next_pair(means, tried)
        tried.add(pair.key_id)
        exchange = Exchange(means, wish, pair)
        state = exchange.start()
        if state is not State.SET_ASIDE:
            return exchange, state
        means.steps.note("Host gave an unsealed no, which proves nothing: key pair set aside")
    raise UnreachableError(
        f"Something answers in the Host's place, or the Host knows none of these key pairs; "
        f"{MAX_SET_ASIDE} were set aside, none is destroyed: try another network, "
        f"or ask the operator."
    )


def _resume(means: Means, wish: Wish) -> tuple[Exchange, State] | None:
    pending = means.store.find()
    if pending is None:
        return None
    pair = next(p for p in means.booklet.keys.pairs() if p.key_id == pending.key_id)
    exchange = Exchange(means, wish, pair)
    state = exchange.resume(pending)
    if state is None:
        means.store.set_aside(pending.key_id)
        means.store.drop()
        return None
    return exchange, state


def _next_pair(means: Means, tried: set[bytes]) -> OneTimePair:
    """Return the next pair in order of use; those set aside by earlier runs come last."""
    aside = means.store.aside()
    untried = [pair for pair in _usable(means) if pair.key_id not in tried]
    if not untried:
        raise NoKeyPairLeftError(
            f"No usable key pair is left on token {means.booklet.label}; "
            f"ask the security officer for a new booklet."
        )
    return min(untried, key=lambda pair: pair.key_id in aside)


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
