"""`carnet-helper`: serves the ordinary users of a traveller's machine."""

import signal
import threading
from pathlib import Path

import click

from carnet.lazy import LazyGroup
from carnet.running import run_command
from helper_agent.config import DEFAULT_PATH


@click.group(cls=LazyGroup, lazy={"install-units": "carnet.units:helper"})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    show_default=True,
    help="The configuration file; there need be none.",
)
@click.version_option(package_name="carnet")
@click.pass_context
def cli(context: click.Context, config: Path) -> None:
    """Carnet's helper: gives ordinary users' tunnels to the IPsec daemon and packet filter."""
    context.obj = config


@cli.command()
@click.pass_obj
def serve(path: Path) -> None:
    """Serve until told to stop."""
    import structlog

    from carnet.ipsec.drivers import Choice, DriverName, find_driver
    from carnet.ipsec.inside import Here
    from carnet.service import start_log
    from carnet.supervision import Manager
    from helper_agent import config as configuration
    from helper_agent.addresses import own_addresses
    from helper_agent.members import members_of
    from helper_agent.owners import Owners
    from helper_agent.server import Server, listen
    from helper_agent.service import Service

    start_log()
    settings, manager = configuration.load(path), Manager()
    listening = listen(settings.socket, settings.group)
    choice = Choice(DriverName(settings.driver), {DriverName.STRONGSWAN: settings.vici})
    owners = Owners(settings.directory, settings.tunnels_per_user)
    here = Here(settings.directory)
    service = Service(settings, find_driver(choice), owners, own_addresses, here)
    service.begin()
    looking = (threading.Event(),)
    threading.Thread(target=service.look_on, args=looking, daemon=True).start()
    server = Server(listening, service, lambda: find_driver(choice), members_of(settings.group))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    structlog.get_logger().info("ready", socket=str(settings.socket))
    manager.ready()
    period = manager.watchdog_seconds
    server.serve(lambda: manager.alive_unless(server.failed), period and period / 3)


def main() -> None:
    """Run the command."""
    run_command(cli, "carnet-helper")
