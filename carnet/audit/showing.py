"""Showing records to a person, and choosing which."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from carnet.audit.chain import AuditRecord
from carnet.audit.meaning import MEANINGS, Meaning
from carnet.moments import format_moment
from carnet.wire.fields import printable

_MEANING = ("steps", "functions")
"""Facts that follow from the event; they are told by its steps."""


@dataclass(frozen=True)
class Choice:
    """Which records are wanted; what is None or empty narrows nothing."""

    user_id: str | None = None
    request_ids: Collection[bytes] = ()
    """With a user: those of her requests, of which some records name no user."""
    event: str | None = None
    until: int | None = None
    """Seconds since 1970."""

    def fits(self, record: AuditRecord) -> bool:
        """Tell whether a record is wanted."""
        if self.until is not None and record.at > self.until:
            return False
        if self.event is not None and record.event != self.event:
            return False
        about = record.facts.get("request_id") in self.request_ids
        if self.user_id is not None:
            return about or record.facts.get("user_id") == self.user_id
        return about or not self.request_ids


def chosen(records: Iterable[AuditRecord], choice: Choice) -> Iterator[AuditRecord]:
    """Yield the records that are wanted."""
    return (record for record in records if choice.fits(record))


def as_json(record: AuditRecord) -> dict[str, object]:
    """Return a record's facts, for scripts."""
    return {
        "number": record.number,
        "at": record.at,
        "event": record.event,
        "facts": record.facts,
    }


def describe(record: AuditRecord) -> str:
    """Return a record as one line for a person, and for grep; times are UTC."""
    meaning = MEANINGS.get(record.event, Meaning())
    facts = {name: value for name, value in record.facts.items() if name not in _MEANING}
    told = [f"{name}={plain(value)}" for name, value in facts.items() if _tells(value)]
    steps = f"step {', '.join(map(str, meaning.steps))}" if meaning.steps else ""
    return "  ".join(
        [
            f"{record.number:6}",
            format_moment(record.at),
            f"{printable(record.event):18}",
            steps,
            *told,
        ]
    )


def _tells(value: object) -> bool:
    return value is not None and value != []


def plain(value: object) -> str:
    """Return a fact as text, bytes in hexadecimal."""
    return value.hex() if isinstance(value, bytes) else printable(str(value))
