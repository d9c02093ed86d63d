"""`carnet status --watch`: the tunnels of this machine, looked at again every second."""

import re
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from carnet.console import complain, print_json
from carnet.errors import IPsecError
from token_client.describing import describe, facts
from token_client.status import TunnelState

SECONDS = 1.0
_PASSING = re.compile(r"up for (at least )?\w+(, \w+ left)?")
"""What is another at each look, and no news."""


def looks(look: Callable[[], list[TunnelState]]) -> Iterator[list[TunnelState] | str]:
    """Yield what is found every second, for ever; why nothing is to be had, as a sentence.

    Raises IPsecError at the first look. A daemon that goes afterwards may come back.
    """
    yield look()
    while True:
        time.sleep(SECONDS)
        try:
            found: list[TunnelState] | str = look()
        except IPsecError as error:
            found = error.sentence
        yield found


def watch(look: Callable[[], list[TunnelState]], *, as_json: bool) -> None:
    """Show the tunnels until interrupted: on the screen, or an array a line as JSON.

    Where there is no screen, a tunnel is shown again when there is something new.
    """
    if as_json:
        _write(looks(look))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        shown = None
        for states in looks(look):
            text = described(states)
            if (news := _PASSING.sub("", text)) != shown:
                console.out(text)
                shown = news
        return
    with Live(console=console, auto_refresh=False) as live:
        for states in looks(look):
            live.update(Text(described(states)), refresh=True)


def _write(found: Iterable[list[TunnelState] | str]) -> None:
    """Write a line for each look; why there is none goes to standard error, once."""
    said = None
    for states in found:
        if isinstance(states, str):
            if states != said:
                complain(f"carnet: {states}")
            said = states
        else:
            print_json([facts(state) for state in states])
            said = None


def described(states: list[TunnelState] | str) -> str:
    """Return all tunnels as lines for a person, or why they cannot be told."""
    if isinstance(states, str):
        return states
    return "\n".join(map(describe, states)) or "No tunnel; `carnet connect` opens one."
