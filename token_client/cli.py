"""The traveller's command: `carnet`."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carnet import VERSION, console, interruption
from carnet.errors import AwayError, IKERefusedError, IPsecError, UsageError

if TYPE_CHECKING:
    from carnet.ipsec.driver import Driver
    from carnet.ipsec.drivers import DriverName
    from carnet.objectives import Objective
    from token_client.by_record import ByRecord
    from token_client.config import ClientConfig
    from token_client.sessions import Session

_PIN = "the PIN of the token"
_token_option = click.option("--token", help="Which token, by label or serial number.")
_FILE = click.Path(dir_okay=False, path_type=Path)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")


def _reach_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the module of a token, and the files of one that stores no cover."""
    officer = click.option("--officer", type=_FILE, help="The security officer's certificate.")
    cover = click.option("--cover", type=_FILE, help="The cover of a token that stores none.")
    module = click.option(
        "--module",
        metavar="PATH",
        help="The token's PKCS#11 module  [default: CARNET_PKCS11_MODULE, else SoftHSM2].",
    )
    return cover(officer(module(command)))


@click.group(help="Carnet: a tunnel into your work network, opened by the token in your hand.")
@click.version_option(VERSION)
def cli() -> None:
    """Hold the commands together."""


@cli.command()
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
@_reach_options
@click.option("--allow-final-try", is_flag=True, help="Risk the last PIN try.")
@click.option(
    "--insecure-benchmark-suites",
    is_flag=True,
    help="Accept MD5, SHA-1 and 3DES, which protect nothing, from a Target that measures them.",
)
@console.secret_options("pin", _PIN)
@_token_option
@_json_option
def connect(
    cover: Path | None,
    officer: Path | None,
    module: str | None,
    driver: str | None,
    no_block: bool,
    **ordered: Any,
) -> None:
    """Open a tunnel to TARGET with the next one-time key pair."""
    from token_client import config as configuration

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
    config: "ClientConfig",
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
    from carnet.pin import PinSource
    from token_client.asked_for import networks_asked_for, objective_asked_for

    option = objective_asked_for(objective, threat, config.minimum)
    networks = networks_asked_for(network, transport=transport)
    if dry_run and driver is not None:
        _show_rendered(config, option, networks, as_json)
        return
    means = _driver(config)
    _look_ahead(config, option)
    # It takes long to import, and the packet filter is asked meanwhile.
    from token_client.opening import Order, open_tunnel

    order = Order(
        option=option,
        networks=networks,
        source=PinSource(fd=pin_fd, file=pin_file, allow_final_try=allow_final_try),
        dry_run=dry_run,
        allow_weak=insecure_benchmark_suites,
        as_json=as_json,
        **ordered,
    )
    open_tunnel(means, config, order, _tell)


@cli.command()
@click.option("--watch", "stay", is_flag=True, help="Look again every second, until Ctrl-C.")
@_json_option
def status(stay: bool, as_json: bool) -> None:
    """Show the tunnels of this machine."""
    from token_client import config as configuration
    from token_client.status import describe, describe_ended, facts, tunnels

    driver = _drivers(configuration.load())
    if stay:
        from token_client.status_watch import watch

        with contextlib.suppress(KeyboardInterrupt):
            interruption.listen()
            watch(partial(tunnels, driver), as_json=as_json)
        return
    try:
        states = tunnels(driver)
    except IPsecError:
        for text in () if as_json else describe_ended():
            click.echo(text)
        raise
    if as_json:
        console.print_json([facts(state) for state in states])
    elif not states:
        click.echo("No tunnel; `carnet connect` opens one.")
    for state in () if as_json else states:
        click.echo(describe(state))


@cli.command()
@click.argument("tunnel", required=False)
@click.option(
    "--release",
    is_flag=True,
    help="Lift the block against packets in clear, also where the IPsec daemon does not answer.",
)
@_json_option
def disconnect(tunnel: str | None, release: bool, as_json: bool) -> None:
    """End TUNNEL (a name or a Target), or all tunnels."""
    from token_client import background
    from token_client import config as configuration
    from token_client.long_wait import said_if_long
    from token_client.status import end, release_by_hand

    if release:
        config = configuration.load()
        leave = partial(background.leave_to_agent, config=config)
        with said_if_long(_tell):
            released = release_by_hand(_drivers(config), tunnel, _tell, leave)
        if as_json:
            console.print_json(released)
        else:
            click.echo(
                f"Released {', '.join(released)}: packets leave as they would without a tunnel."
                if released
                else "There was nothing to release."
            )
        return
    with said_if_long(_tell):
        ended = end(_drivers(configuration.load()), tunnel, _tell)
    if as_json:
        console.print_json([state.name for state in ended])
    else:
        names = ", ".join(state.label for state in ended)
        click.echo(f"Ended the tunnel to {names}." if ended else "There was no tunnel to end.")


@cli.command()
@click.argument("tunnel", required=False)
@_json_option
def resume(tunnel: str | None, as_json: bool) -> None:
    """Bring TUNNEL back that was lost, or all tunnels, without a new key pair."""
    from token_client import background, mtu, name_servers
    from token_client import config as configuration
    from token_client.memory import memory_directory
    from token_client.returning import bring_back
    from token_client.sessions import SessionStore

    config = configuration.load()
    chosen = SessionStore(memory_directory()).choose(tunnel)
    for session in chosen:
        if session.released:
            _tell(background.finish_released(session, config))
    known = [s for s in chosen if s.ended is None]
    # What is over keeps no other from coming back, and is refused where it was meant.
    sessions = [session for session in known if not session.is_over(time.time())] or known
    for session in sessions:
        try:
            bring_back(_driver(config, session), session)
        except IKERefusedError as error:
            raise background.ask_on(session, config, error) from error
        except AwayError:
            # It may come back all the same, as soon as there is an answer.
            background.leave_to_agent(session, config)
            raise
        name_servers.use_again(session)
        background.start(session, config)
        mtu.fit(session)
    if as_json:
        console.print_json([session.name for session in sessions])
    else:
        names = ", ".join(session.target for session in sessions)
        click.echo(f"The tunnel to {names} stands." if sessions else "There is no tunnel.")


@cli.command()
@click.argument("tunnel", required=False)
@click.option("--worker", is_flag=True, hidden=True)
def agent(tunnel: str | None, worker: bool) -> None:
    """Watch over TUNNEL and its token, as `carnet connect` has it done in the background."""
    from token_client import config as configuration
    from token_client import supervising
    from token_client.memory import memory_directory
    from token_client.sessions import SessionStore

    interruption.listen()
    config = configuration.load()
    sessions = SessionStore(memory_directory()).choose(tunnel)
    if len(sessions) != 1:
        raise UsageError("Say which tunnel to watch over; `carnet status` shows those there are.")

    def work() -> None:
        now = configuration.load()
        supervising.work(_driver(now, sessions[0]), sessions[0], now, _tell)

    if worker:
        work()
    else:
        supervising.supervise(work, _driver(config, sessions[0]), sessions[0], config)


@cli.command()
@_reach_options
@_json_option
def tokens(cover: Path | None, officer: Path | None, module: str | None, as_json: bool) -> None:
    """List the tokens that are plugged in, as far as they tell without a PIN."""
    from token_client import config as configuration
    from token_client.tokens import describe, facts, list_tokens

    config = configuration.load(cover=cover, officer=officer, module=module)
    found = list_tokens(config, _tell)
    if as_json:
        console.print_json([facts(token) for token in found])
    elif not found:
        click.echo("No token is seen; `carnet doctor` tells more.")
    for token in () if as_json else found:
        click.echo(describe(token))


@cli.command()
@_json_option
def objectives(as_json: bool) -> None:
    """Show the paper's Tables 1 to 3, and what this machine can do."""
    from carnet.ipsec.drivers import look_around
    from token_client import config as configuration
    from token_client.options import describe, facts

    found = list(look_around(configuration.load().drivers))
    if as_json:
        console.print_json(facts(found))
    else:
        click.echo("\n".join(describe(found)))


@cli.command()
@_token_option
@_reach_options
@_json_option
def doctor(
    token: str | None,
    cover: Path | None,
    officer: Path | None,
    module: str | None,
    as_json: bool,
) -> int:
    """Say what is right, and what to do where something is not."""
    from carnet.findings import show
    from token_client import config as configuration
    from token_client.doctor import examine

    shown = partial(show, as_json=as_json)
    config = configuration.load(cover=cover, officer=officer, module=module)
    _use_privileges(config)
    return shown(examine(config, token, shown))


def _driver(config: "ClientConfig", session: "Session | None" = None) -> "Driver":
    """Return the driver that brought a session up, or where that is not told, who answers."""
    from carnet.ipsec.drivers import driver_of

    _use_privileges(config)
    return driver_of(config.drivers, session.driver if session else None)


def _drivers(config: "ClientConfig") -> "ByRecord":
    """Return what ends any session by the driver that brought it up."""
    from token_client.by_record import ByRecord

    _use_privileges(config)
    return ByRecord(config.drivers)


def _use_privileges(config: "ClientConfig") -> None:
    """Have what takes privileges be done by the helper, where there is one."""
    from carnet.ipsec import block, inside
    from token_client.memory import memory_directory

    choice = config.drivers
    if choice.helper is None:
        inside.use(inside.Here(memory_directory()))
    else:
        from carnet.ipsec.helper.client import HelperFilter, HelperInside

        block.use(HelperFilter(choice.helper))
        inside.use(HelperInside(choice.helper))


def _look_ahead(config: "ClientConfig", option: "Objective") -> None:
    """Begin to look for the packet filter, where the tunnel is to have a block."""
    from carnet.ipsec import block
    from carnet.objectives import Objective

    if config.block and option is not Objective.NATIVE:
        block.look_ahead()


def _driver_named(name: str | None) -> "DriverName | None":
    from carnet.ipsec.drivers import DriverName

    try:
        return None if name is None else DriverName(name)
    except ValueError:
        choices = ", ".join(DriverName)
        raise UsageError(f"There is no driver {name!r}; choose one of {choices}.") from None


def _show_rendered(
    config: "ClientConfig",
    option: "Objective",
    networks: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Show what the named driver would be told; neither token nor daemon is needed."""
    from token_client.rendering import facts, rendered

    shown = rendered(config.drivers, option, networks)
    if as_json:
        console.print_json(facts(config.drivers, shown))
    else:
        click.echo(shown, nl=False)


def _tell(sentence: str) -> None:
    """Say what happens meanwhile; standard output is for the result."""
    click.echo(sentence, err=True)


def main() -> None:
    """Run the command."""
    console.run_command(cli, "carnet")
