"""`carnet status --watch`: the tunnels of this machine, looked at again every second."""

import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from carnet.console import print_json
from token_client.status import TunnelState, describe, facts

SECONDS = 1.0


def looks(look: Callable[[], list[TunnelState]]) -> Iterator[list[TunnelState]]:
    """Yield what is found every second, for ever; raises IPsecError."""
    while True:
        yield look()
        time.sleep(SECONDS)


def watch(look: Callable[[], list[TunnelState]], *, as_json: bool) -> None:
    """Show the tunnels until interrupted: on the screen, or an array a line as JSON.

    Where there is no screen, a tunnel is shown again when there is something new.
    """
    if as_json:
        for states in looks(look):
            print_json([facts(state) for state in states])
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        shown = None
        for states in looks(look):
            if (text := described(states)) != shown:
                console.out(text)
                shown = text
        return
    with Live(console=console, auto_refresh=False) as live:
        for states in looks(look):
            live.update(Text(described(states)), refresh=True)


def described(states: list[TunnelState]) -> str:
    """Return all tunnels as lines for a person."""
    return "\n".join(map(describe, states)) or "No tunnel; `carnet connect` opens one."
