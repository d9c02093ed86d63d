"""What a `doctor` finds: part by part what is right, and what to do where something is not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import click

from carnet.console import finish_output, print_json
from carnet.errors import CarnetError
from carnet.token.frozen import EXIT_STATUS, FROZEN, unless_frozen

Looks = Iterable[tuple[str, Callable[[], str]]]
"""Parts by name, and what looks at each: it returns a sentence, or raises CarnetError."""
Show = Callable[[list["Finding"]], int]
"""What shows findings and returns the exit status."""


@dataclass(frozen=True)
class Finding:
    """What one part is like."""

    part: str
    good: bool
    sentence: str
    exit_status: int = 0
    """What a command that needs it would end with; 0 if it could work all the same."""


class WarningError(CarnetError):
    """Not right, and yet what needs it could work."""

    exit_status = 0


def look_at(parts: Looks, show: Show) -> list[Finding]:
    """Look at each part; one part's trouble hides no other's.

    But where one waits for a PC/SC service that stands still: then what was found is shown
    up to there, and the process ends.
    """
    found: list[Finding] = []
    for part, look in parts:
        with unless_frozen(partial(_cut_short, found, part, show)):
            found.append(_find(part, look))
    return found


def _cut_short(found: list[Finding], part: str, show: Show) -> int:
    stuck = Finding(part, good=False, sentence=FROZEN, exit_status=EXIT_STATUS)
    status = show([*found, stuck])
    finish_output()
    return status


def show(findings: list[Finding], *, as_json: bool) -> int:
    """Print one line each, or all as JSON; return the exit status, the first bad part's."""
    if as_json:
        print_json([vars(finding) for finding in findings])
    for finding in () if as_json else findings:
        click.echo(f"{_mark(finding)} {finding.part:13} {finding.sentence}")
    return next((finding.exit_status for finding in findings if finding.exit_status), 0)


def _find(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, good=True, sentence=look())
    except CarnetError as error:
        return Finding(part, good=False, sentence=error.sentence, exit_status=error.exit_status)


def _mark(finding: Finding) -> str:
    if finding.good:
        return click.style("ok  ", fg="green")
    return (
        click.style("bad ", fg="red") if finding.exit_status else click.style("warn", fg="yellow")
    )
