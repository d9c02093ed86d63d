"""Where a whole `carnet connect` goes: every moment of it counted for one piece."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench import accounted
from bench.comparison import Aim, Row, Spread
from lab.office import Office

GROUP = "Connecting, piece by piece"
WHOLE = "all of it"
_STEPS = {
    "steps 2, 3, 7: Host's own": ("2", "3", "7"),
    "steps 4, 5: Target's own": ("4", "5"),
    "step 6: Host and Target, on their way": ("6",),
}
"""What the answer tells of the time until it is there."""
_FIRST, _LAST = "nsenter and interpreter, until the first line", "from the last line to the end"
STRONGSWAN_HAS_NONE = {
    "imports, start and end": (accounted.IMPORTS, _FIRST, _LAST),
    "Host and Target": (*_STEPS, accounted.SENDING),
    "the key pair destroyed": ("step 10: key pair destroyed",),
    "rekeying": ("step 9: IKE_SA rekeyed",),
    "the block": ("step 9: block set",),
}
"""The pieces that strongSwan alone has not, by why."""
_SCRIPT = Path(accounted.__file__)


def account(office: Office) -> dict[str, float]:
    """Connect once with a clock; return the milliseconds of each piece, and of all."""
    client = office.world.client
    path = client.directory / "account.json"
    argv = ["python", "-P", str(_SCRIPT), str(path), "connect", "--json"]
    started = time.monotonic()
    done = office.command(client, *argv, given={"pin": office.secrets.pin})
    ended = time.monotonic()
    office.carnet("disconnect")
    told = json.loads(path.read_text())
    return {
        _FIRST: 1000 * (told["begun"] - started),
        **_divided(told["taken"], json.loads(done.stdout)["steps_ms"]),
        _LAST: 1000 * (ended - told["over"]),
        WHOLE: 1000 * (ended - started),
    }


def _divided(taken: Mapping[str, float], steps: Mapping[str, float]) -> dict[str, float]:
    """Divide what it took until the answer was there by what the answer tells of it."""
    others = {name: sum(steps[each] for each in of) for name, of in _STEPS.items()}
    pieces = {**dict.fromkeys(accounted.PIECES, 0.0), **taken, **others}
    pieces[accounted.SENDING] -= sum(others.values())
    return pieces


def rows(accounts: Sequence[Mapping[str, float]], plain: tuple[float, ...]) -> Iterator[Row]:
    """Give each piece that there was, the longest first; then what the clock itself costs.

    `plain` are the milliseconds of the command without a clock, round by round.
    """
    columns = {name: tuple(each[name] for each in accounts) for name in accounts[0]}
    whole = columns.pop(WHOLE)
    columns = {name: column for name, column in columns.items() if any(column)}
    ordered = sorted(columns, key=lambda name: Spread.of(columns[name]).median, reverse=True)
    for name in ordered:
        yield _row(name, WHOLE, columns[name], whole)
    yield _row(WHOLE, "without the clock", whole, plain, _sums(columns))


def _sums(columns: Mapping[str, Sequence[float]]) -> str:
    """Say what the medians add up to, and those of what strongSwan alone has not."""
    medians = {name: Spread.of(column).median for name, column in columns.items()}
    without = (
        f"{why} {sum(medians.get(name, 0.0) for name in names):.0f}"
        for why, names in STRONGSWAN_HAS_NONE.items()
    )
    return (
        f"the medians of the pieces add up to {sum(medians.values()):.0f} ms, of which "
        f"strongSwan alone has none: {', '.join(without)}"
    )


def _row(
    name: str, floor: str, ours: tuple[float, ...], theirs: tuple[float, ...], note: str = ""
) -> Row:
    return Row(
        group=GROUP, name=name, floor_name=floor, unit="ms", aim=Aim("to be seen"), ours=ours,
        floor=theirs, note=note,
    )  # fmt: skip
