"""Draws the state machines from their tables: `python -m tools.diagrams [--check]`.

The tables are the truth; docs/diagrams.md only shows them, as Mermaid state diagrams.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import click

from carnet.exchange import client, host, target
from carnet.exchange.machine import Actions, Machine, Table
from host_agent import hsm_states
from token_client import session_states

DOCUMENT = Path(__file__).parents[1] / "docs" / "diagrams.md"

_PREAMBLE = """\
# The state machines

Drawn from the tables in `carnet/exchange/`, `host_agent/hsm_states.py` and
`token_client/session_states.py` by `make diagrams`; `make check` fails when this page is not
what they say. An arrow is one row: *event / actions, in their order*. A state with a thick
border is **durable**: whoever restarts finds it written down, and goes on from there. What the
steps are is in [PROTOCOL.md](PROTOCOL.md).
"""


@dataclass(frozen=True)
class Party:
    """One of those that have a table."""

    name: str
    remark: str
    states: type[StrEnum]
    table: Table[Any]
    durable: frozenset[Any]
    start: Machine[Any]


PARTIES = (
    Party(
        "Client",
        "One run with one key pair. What is durable is so in memory only: it is gone when the "
        "machine is switched off.",
        client.State,
        client.TABLE,
        client.DURABLE,
        client.machine(),
    ),
    Party(
        "Host",
        "One request. `PassOn`, the only way to Target, is reached through the durable state "
        "*spent* alone. The same bytes, sent again, start a new run that finds in *looking* how "
        "far the last one came.",
        host.State,
        host.TABLE,
        host.DURABLE,
        host.machine(),
    ),
    Party(
        "Target",
        "One request, and then its tunnel. An answer leaves only after its record is durable. "
        "A restarted Target takes its tunnels up in *prepared* or *established*.",
        target.State,
        target.TABLE,
        target.DURABLE,
        target.machine(),
    ),
    Party(
        "The Host's HSM",
        "One for all requests; nothing of it is durable. While it is *away* or *shut out* no "
        "pair is spent, and whoever asks gets a 503.",
        hsm_states.State,
        hsm_states.TABLE,
        frozenset(),
        hsm_states.machine(),
    ),
    Party(
        "A session of the Client's",
        "One for each tunnel that `carnet connect` was granted; all of it is in its record, and so "
        "durable in memory. Whoever ends a session whole drops the record in any state. A change "
        "without an arrow does nothing: who comes late is not believed.",
        session_states.State,
        session_states.TABLE,
        frozenset(session_states.State),
        session_states.machine(),
    ),
)


class _AnyEvent:
    """Stands for the event in a row, to learn which actions follow; has every attribute."""

    def __getattr__(self, _: str) -> "_AnyEvent":
        return self


def document() -> str:
    """Return docs/diagrams.md as the tables have it now."""
    return "\n".join([_PREAMBLE, *(_section(party) for party in PARTIES)])


def _section(party: Party) -> str:
    diagram = "\n".join(f"    {line}" for line in _diagram(party))
    return f"""\
## {party.name}

{party.remark}

```mermaid
stateDiagram-v2
{diagram}
```
"""


def _diagram(party: Party) -> Iterator[str]:
    for state in party.states:
        yield f'state "{state}" as {state.name}'
    yield f"[*] --> {party.start.state.name}"
    for (state, event), (following, act) in party.table.items():
        yield f"{state.name} --> {following.name}: {_label(event, act)}"
    for state in _final(party):
        yield f"{state.name} --> [*]"
    if party.durable:
        yield "classDef durable font-weight:bold,stroke-width:4px"
        yield f"class {','.join(s.name for s in party.states if s in party.durable)} durable"


def _label(event: type, act: Callable[[Any], Actions]) -> str:
    actions = ", ".join(type(action).__name__ for action in act(_AnyEvent()))
    return f"{event.__name__} / {actions}" if actions else event.__name__


def _final(party: Party) -> list[StrEnum]:
    """Return the states that no row leaves."""
    left = {state for state, _ in party.table}
    return [state for state in party.states if state not in left]


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if the page is stale.")
def main(*, check: bool) -> None:
    """Draw the state machines of docs/diagrams.md from their tables."""
    drawn = document()
    if not check:
        DOCUMENT.write_text(drawn, encoding="utf-8")
    elif not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != drawn:
        click.echo(f"docs/{DOCUMENT.name} is stale; run `make diagrams`.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
