"""`carnet connect`."""

from pathlib import Path
from typing import Any

import click

from carnet import console, interruption
from carnet.errors import UsageError
from carnet.ipsec import block
from carnet.ipsec.drivers import DriverName
from carnet.objectives import Objective
from carnet.secret_sources import secret_options
from token_client import config as configuration
from token_client.asked_for import networks_asked_for, objective_asked_for
from token_client.commands.drivers import driver as driver_for
from token_client.commands.shared import json_option, reach_options, tell, token_option
from token_client.config import ClientConfig


@click.command()
@click.argument("target", required=False)
@click.option(
    "--objective",
    multiple=True,
    help="IPsec option (native, ah, esp, ah+esp) or security objective.",
)
@click.option("--threat", multiple=True, help="A threat of the paper's Table 1 to be safe from.")
@click.option("--network", multiple=True, help="Only this network behind Target (CIDR).")
@click.option("--transport", is_flag=True, help="Target alone, in transport mode.")
@click.option(
    "--lifetime", type=console.DURATION, help="How long, such as 8h; else as long as allowed."
)
@click.option("--foreground", is_flag=True, help="Stay, and end the tunnel on Ctrl-C.")
@click.option("--wait", is_flag=True, help="Wait until the token is plugged in.")
@click.option(
    "--no-block",
    is_flag=True,
    help="Let packets leave in clear while the tunnel is down; else they are held back.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be asked for; send nothing.")
@click.option(
    "--driver",
    metavar="NAME",
    help="Which IPsec implementation; with --dry-run, show what it would be told.",
)
@reach_options
@click.option("--allow-final-try", is_flag=True, help="Risk the last PIN try.")
@click.option(
    "--insecure-benchmark-suites",
    is_flag=True,
    help="Accept MD5, SHA-1 and 3DES, which protect nothing, from a Target that measures them.",
)
@secret_options("pin", "the PIN of the token")
@token_option
@json_option
def connect(
    cover: Path | None,
    officer: Path | None,
    module: str | None,
    driver: str | None,
    no_block: bool,
    **ordered: Any,
) -> None:
    """Open a tunnel to TARGET with the next one-time key pair."""
    interruption.listen()
    config = configuration.load(
        cover=cover,
        officer=officer,
        module=module,
        driver=_driver_named(driver),
        block=False if no_block else None,
    )
    _connect(config, driver, **ordered)


def _connect(
    config: ClientConfig,
    driver: str | None,
    *,
    objective: tuple[str, ...],
    threat: tuple[str, ...],
    network: tuple[str, ...],
    transport: bool,
    dry_run: bool,
    insecure_benchmark_suites: bool,
    pin_fd: int | None,
    pin_file: Path | None,
    allow_final_try: bool,
    as_json: bool,
    **ordered: Any,
) -> None:
    """Do what was ordered; `ordered` is the rest of token_client.opening.Order."""
    option = objective_asked_for(objective, threat, config.minimum)
    networks = networks_asked_for(network, transport=transport)
    if dry_run and driver is not None:
        _show_rendered(config, option, networks, as_json)
        return
    means = driver_for(config)
    _look_ahead(config, option)
    # They take long to import, and the packet filter is asked meanwhile.
    from carnet.pin import PinSource  # noqa: PLC0415
    from token_client.opening import Order, open_tunnel  # noqa: PLC0415

    order = Order(
        option=option,
        networks=networks,
        source=PinSource(fd=pin_fd, file=pin_file, allow_final_try=allow_final_try),
        dry_run=dry_run,
        allow_weak=insecure_benchmark_suites,
        as_json=as_json,
        **ordered,
    )
    open_tunnel(means, config, order, tell)


def _look_ahead(config: ClientConfig, option: Objective) -> None:
    """Begin to look for the packet filter, where the tunnel is to have a block."""
    if config.block and option is not Objective.NATIVE:
        block.look_ahead()


def _driver_named(name: str | None) -> DriverName | None:
    try:
        return None if name is None else DriverName(name)
    except ValueError:
        choices = ", ".join(DriverName)
        raise UsageError(f"There is no driver {name!r}; choose one of {choices}.") from None


def _show_rendered(
    config: ClientConfig,
    option: Objective,
    networks: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Show what the named driver would be told; neither token nor daemon is needed."""
    from token_client.rendering import facts, rendered  # noqa: PLC0415  seldom asked for

    shown = rendered(config.drivers, option, networks)
    if as_json:
        console.print_json(facts(config.drivers, shown))
    else:
        click.echo(shown, nl=False)
