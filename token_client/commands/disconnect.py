"""`carnet disconnect`."""

from functools import partial

import click

from carnet import console
from token_client import background
from token_client import config as configuration
from token_client.commands.drivers import drivers
from token_client.commands.shared import json_option, tell
from token_client.config import ClientConfig
from token_client.ending_by_hand import end, release_by_hand
from token_client.long_wait import said_if_long
from token_client.status import TunnelState


@click.command()
@click.argument("tunnel", required=False)
@click.option(
    "--release",
    is_flag=True,
    help="Lift the block against packets in clear, also where the IPsec daemon does not answer.",
)
@json_option
def disconnect(tunnel: str | None, release: bool, as_json: bool) -> None:
    """End TUNNEL (a name or a Target), or all tunnels."""
    (_release if release else _end)(configuration.load(), tunnel, as_json=as_json)


def _release(config: ClientConfig, tunnel: str | None, *, as_json: bool) -> None:
    leave = partial(background.leave_to_agent, config=config)
    with said_if_long(tell):
        released = release_by_hand(drivers(config), tunnel, tell, leave)
    if as_json:
        console.print_json(released)
    else:
        click.echo(
            f"Released {', '.join(released)}: packets leave as they would without a tunnel."
            if released
            else "There was nothing to release."
        )


def _end(config: ClientConfig, tunnel: str | None, *, as_json: bool) -> None:
    """End them, each on its own. Raises the first of what kept any from ending."""
    with said_if_long(tell):
        ended = end(drivers(config), tunnel, tell)
    if ended.states or not ended.failures:
        _show(ended.states, as_json=as_json)
    for another in ended.failures[1:]:
        tell(another.sentence)
    for failure in ended.failures:
        raise failure


def _show(ended: list[TunnelState], *, as_json: bool) -> None:
    if as_json:
        console.print_json([state.name for state in ended])
    else:
        click.echo(told(ended))


def told(ended: list[TunnelState]) -> str:
    """Return what was ended, and of which sessions but a record was left that they had."""
    had = [
        state
        for state in ended
        if state.session is not None and state.session.stage.is_ended and state.live is None
    ]
    tunnels = ", ".join(state.label for state in ended if state not in had)
    sessions = ", ".join(state.label for state in had)
    sentences = [f"Ended the tunnel to {tunnels}."] if tunnels else []
    if sessions:
        sentences.append(
            f"The session to {sessions} had ended already; nothing is kept of it here."
        )
    return " ".join(sentences) or "There was no tunnel to end."
