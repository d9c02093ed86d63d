"""What a Host carries, next to the token operations of its requests in a bare loop."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pkcs11 import KDF, Attribute, KeyType, Mechanism, MechanismFlag

from bench import host_process
from bench.comparison import Aim, Row, in_turn
from bench.host_process import Where
from bench.load import Load, closed_loop, open_loop
from bench.plan import Plan
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, find_module, load_module
from carnet.token.session import TokenSession, open_session
from lab.postgresql import postgres_machine
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.host.real_host import PIN, SO_PIN, sealed

GROUP = "Host"
_CLIENTS = (1, 8, 64)
_PROCESSES = (2, 4)


def rows(plan: Plan) -> Iterator[Row]:
    """Measure requests a second, latencies under load, and what more processes bring."""
    yield from _rates(plan)
    yield _latency(plan)
    for count in _PROCESSES:
        yield from _processes(plan, count)


def _rates(plan: Plan) -> Iterator[Row]:
    rounds, size = plan.rounds(9), plan.size(96, 64)
    for clients in _CLIENTS:
        directory = plan.place()
        bodies = _bodies(Where(directory), (rounds + 1) * size)
        with (
            bare_token(module_with_tokens_in(plan.place()), (rounds + 1) * size) as floor,
            host_process.serving(Where(directory)) as (port, _),
            plan.progress(f"Host, {clients} Clients", rounds + 1) as advance,
        ):
            ours, bare = in_turn(
                lambda: closed_loop([port], _take(bodies, size), clients).rate,  # noqa: B023
                partial(floor, size),
                rounds,
                advance,
            )
        yield Row(
            group=GROUP,
            name=f"one process, {clients} Clients in a closed loop",
            floor_name="the same token operations in a bare loop",
            unit="requests/s",
            aim=Aim("at least half", least=0.5),
            ours=ours,
            floor=bare,
            note="agree, sign, and destroy both halves, for each request; SQLite, SoftHSM2",
        )


def _latency(plan: Plan) -> Row:
    """Measure p99 against p50 at four fifths of the rate that one process carries."""
    rounds, size = plan.rounds(9), plan.size(200, 100)
    directory = plan.place()
    bodies = _bodies(Where(directory), (rounds + 2) * size)
    loads: list[Load] = []
    with (
        host_process.serving(Where(directory)) as (port, _),
        plan.progress("Host at 80 % load", rounds) as advance,
    ):
        closed_loop([port], _take(bodies, size), 8)
        rate = 0.8 * closed_loop([port], _take(bodies, size), 8).rate
        for _ in range(rounds):
            loads.append(open_loop(port, _take(bodies, size), rate))
            advance()
    return Row(
        group=GROUP,
        name="p99 at 80 % load",
        floor_name="p50 of the same",
        unit="ms",
        aim=Aim("at most 5 times", most=5),
        ours=tuple(load.percentile(99) for load in loads),
        floor=tuple(load.median for load in loads),
        note=f"{rate:.0f} requests a second, each counted from when it was due",
    )


def _processes(plan: Plan, count: int) -> Iterator[Row]:
    yield _scaling(plan, count, "SQLite", Where(plan.place()))
    with postgres_machine() as machine:
        server = machine.start()
        with server.database() as name:
            place = Where(plan.place(), server.url(name), server.password_file)
            yield _scaling(plan, count, "PostgreSQL", place)
    yield _token_alone(plan, count)


def _scaling(plan: Plan, count: int, kind: str, where: Where) -> Row:
    rounds, size = plan.rounds(9), plan.size(96, 64)
    name = f"{count} processes, {kind}, 16 Clients"
    bodies = _bodies(where, 2 * (rounds + 1) * size)
    with ExitStack() as stack, plan.progress(name, rounds + 1) as advance:
        ports = [stack.enter_context(host_process.serving(where))[0] for _ in range(count)]
        ours, one = in_turn(
            lambda: closed_loop(ports, _take(bodies, size), 16).rate,
            lambda: closed_loop(ports[:1], _take(bodies, size), 16).rate,
            rounds,
            advance,
        )
    return Row(
        group=GROUP,
        name=name,
        floor_name="one of them alone",
        unit="requests/s",
        aim=Aim("more, until the token or the disk limits"),
        ours=ours,
        floor=one,
        note="one SoftHSM2 token and one database for all",
    )


def _token_alone(plan: Plan, processes: int) -> Row:
    """Measure what more processes bring on the token itself: no Host's code is in it."""
    from bench.token_process import rate  # noqa: PLC0415  it stands on this module

    rounds, size = plan.rounds(9), plan.size(96, 48)
    with plan.progress(f"the token, {processes} processes", rounds + 1) as advance:
        ours, one = in_turn(
            lambda: rate(plan.place(), processes, size),
            lambda: rate(plan.place(), 1, size),
            rounds,
            advance,
        )
    return Row(
        group=GROUP,
        name=f"the token alone, {processes} processes",
        floor_name="one process",
        unit="requests/s",
        aim=Aim("none: SoftHSM2's own"),
        ours=ours,
        floor=one,
        note="the same operations in a bare loop in each process",
    )


def _bodies(where: Where, count: int) -> Iterator[bytes]:
    """Fill a Host with so many pairs; return a request of each."""
    keys = host_process.filled(where, count)
    return iter([sealed(key) for key in keys])


def _take(bodies: Iterator[bytes], count: int) -> list[bytes]:
    return [next(bodies) for _ in range(count)]


def module_with_tokens_in(directory: Path) -> Module:
    """Return SoftHSM2 with its tokens in this directory; sessions with others are over."""
    os.environ[CONFIGURATION_VARIABLE] = str(prepare(directory))
    module = load_module(find_module(None))
    module.library.reinitialize()
    return module


@contextmanager
def bare_token(module: Module, pairs: int) -> Iterator[Callable[[int], float]]:
    """Give what does a request's token operations so many times; it returns them a second."""
    serial = initialise_token(module, label=f"bare {pairs}", so_pin=SO_PIN, pin=PIN)
    with open_session(module.choose(serial), PIN, writable=True) as session:
        left = iter([bare_pair(session) for _ in range(pairs)])
        yield partial(_operations_a_second, left)


def bare_pair(session: TokenSession) -> tuple[Any, Any]:
    """Make a pair for the session and copy it: SoftHSM2 stores a copy much faster."""
    curve = {Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}
    parameters = session.raw.create_domain_parameters(KeyType.EC, curve, local=True)
    uses = MechanismFlag.SIGN | MechanismFlag.DERIVE
    made = parameters.generate_keypair(capabilities=uses)
    public, private = (half.copy({Attribute.TOKEN: True}) for half in made)
    for half in made:
        half.destroy()
    return public, private


def _operations_a_second(left: Iterator[tuple[Any, Any]], count: int) -> float:
    pairs = [next(left) for _ in range(count)]
    started = time.perf_counter()
    for public, private in pairs:
        bare_request(public, private)
    return count / (time.perf_counter() - started)


def bare_request(public: Any, private: Any) -> None:
    """Agree, sign, and destroy both halves."""
    point = public[Attribute.EC_POINT][2:]
    secret = private.derive_key(
        KeyType.GENERIC_SECRET,
        256,
        mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, point),
        template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
    )
    bytes(secret[Attribute.VALUE])
    secret.destroy()
    private.sign(bytes(32), mechanism=Mechanism.ECDSA)
    private.destroy()
    public.destroy()
