"""What `carnet connect` shows: the tunnel that stands, or in a dry run the plan for it."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from carnet import console
from carnet.counting import counted
from carnet.durations import format_duration

if TYPE_CHECKING:
    from token_client.config import ClientConfig
    from token_client.connect import Connected
    from token_client.record import Session


def show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    """Show what would be asked for."""
    if as_json:
        console.print_json(plan)
        return
    lifetime = plan["lifetime"]
    networks = "Target alone" if plan["networks"] == () else "all that you may have"
    shown = plan | {
        "hosts": ", ".join(plan["hosts"]),
        "networks": ", ".join(plan["networks"] or ()) or networks,
        "lifetime": format_duration(lifetime) if lifetime else "as long as allowed",
        "key_id": plan["key_id"] or "none is left",
    }
    for name, value in shown.items():
        click.echo(f"{name:14} {value}")


def show(
    connected: "Connected", config: "ClientConfig", tell: Callable[[str], None], *, as_json: bool
) -> None:
    """Show a tunnel that stands, and how many key pairs are left; `tell` what is to be seen to."""
    if as_json:
        _show_facts(connected)
    else:
        _show_in_words(connected)
    for sentence in _to_be_seen_to(connected, config):
        tell(sentence)


def _show_facts(connected: "Connected") -> None:
    facts = connected.session.facts
    steps = {str(number): round(ms, 1) for number, ms in connected.milliseconds.items()}
    console.print_json({**facts, "pairs_left": connected.pairs_left, "steps_ms": steps})


def _show_in_words(connected: "Connected") -> None:
    session, left = connected.session, connected.pairs_left
    click.echo(
        f"Connected to {session.target}: {_where(session)}, "
        f"{format_duration(connected.seconds)} long."
    )
    if left is None:
        click.echo("How many key pairs are left the token did not tell; `carnet tokens` asks it.")
    else:
        click.echo(f"{counted(left, 'key pair')} left on the token.")


def _to_be_seen_to(connected: "Connected", config: "ClientConfig") -> Iterator[str]:
    session, left = connected.session, connected.pairs_left
    if session.clock_behind:
        off = f"{'behind' if session.clock_behind > 0 else 'ahead of'} the Host's"
        apart = format_duration(abs(session.clock_behind))
        yield f"This machine's clock is {apart} {off}; set it."
    if session.target_ahead:
        yield _clock_of(session.target, session.target_ahead)
    if left is not None and left < config.few_pairs:
        yield "Few key pairs are left; ask the security officer for a new booklet in time."


def _clock_of(target: str, ahead: int) -> str:
    apart = f"{format_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'}"
    return (
        f"Target {target}'s clock is {apart} this machine's, so the session is counted here, for as"
        f" long as you asked; have the one set that is wrong."
    )


def _where(session: "Session") -> str:
    networks = ", ".join(session.networks) or "Target alone"
    through = session.virtual_address
    return f"{networks} through {through}" if through else networks
