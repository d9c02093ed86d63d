"""`carnet status`."""

import contextlib
from functools import partial

import click

from carnet import console, interruption
from carnet.errors import IPsecError
from token_client import config as configuration
from token_client.by_record import Ends
from token_client.commands.drivers import drivers
from token_client.commands.shared import json_option
from token_client.describing import describe, describe_recorded, facts
from token_client.status import recorded, tunnels


@click.command()
@click.option("--watch", "stay", is_flag=True, help="Look again every second, until Ctrl-C.")
@json_option
def status(stay: bool, as_json: bool) -> None:
    """Show the tunnels of this machine."""
    driver = drivers(configuration.load())
    try:
        if stay:
            _stay(driver, as_json=as_json)
            return
        states = tunnels(driver)
    except IPsecError as error:
        _show_recorded(error, as_json=as_json)
        raise
    if as_json:
        console.print_json([facts(state) for state in states])
    elif not states:
        click.echo("No tunnel; `carnet connect` opens one.")
    for state in () if as_json else states:
        click.echo(describe(state))
    for state in states:
        if state.trouble is not None:
            raise IPsecError(state.trouble)


def _stay(driver: Ends, *, as_json: bool) -> None:
    """Look again and again. Raises IPsecError at the first look alone."""
    from token_client.status_watch import watch  # noqa: PLC0415  seldom asked for

    with contextlib.suppress(KeyboardInterrupt):
        interruption.listen()
        watch(partial(tunnels, driver), as_json=as_json)


def _show_recorded(error: IPsecError, *, as_json: bool) -> None:
    """Show what records tell, where they tell anything and no daemon can be asked."""
    states = recorded(error.sentence) if as_json else []
    if states:
        console.print_json([facts(state) for state in states])
    for text in () if as_json else describe_recorded():
        click.echo(text)
