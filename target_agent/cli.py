"""`carnet-target`: the Target's command."""

from functools import partial
from pathlib import Path

import click

from carnet import VERSION
from carnet.errors import UsageError
from carnet.files import private_directory, write_private
from carnet.ipsec.drivers import settled_driver
from carnet.lazy import LazyGroup
from carnet.running import run_command
from target_agent.commands.local import ADDRESS, NAME, NETWORK, Local, pass_local
from target_agent.config import DEFAULT_PATH, PATH_VARIABLE, load
from target_agent.template import Answers, render


@click.group(
    cls=LazyGroup,
    lazy={
        "install-units": "carnet.units:target",
        **{name: f"target_agent.commands.{name}:{name}" for name in ("audit", "tunnels", "users")},
    },
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    envvar=PATH_VARIABLE,
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)
@click.version_option(VERSION)
@click.pass_context
def cli(context: click.Context, config: Path) -> None:
    """Carnet's Target: the gateway of the work network."""
    context.obj = Local(config)


@cli.command()
@click.option("--name", type=NAME, default="work", show_default=True, help="What users ask for.")
@click.option(
    "--address",
    "addresses",
    type=ADDRESS,
    multiple=True,
    default=("198.51.100.2",),
    show_default=True,
    help="A public address of this machine; may be repeated.",
)
@click.option(
    "--network",
    "networks",
    type=NETWORK,
    multiple=True,
    default=("10.20.0.0/16",),
    show_default=True,
    help="A network behind this machine; may be repeated.",
)
@click.option(
    "--virtual-addresses",
    type=NETWORK,
    default="10.99.0.0/24",
    show_default=True,
    help="Where travellers' addresses inside their tunnels are taken from.",
)
@click.option(
    "--virtual-addresses-v6",
    type=NETWORK,
    help="The same for tunnels to IPv6 networks, where there are some.",
)
@pass_local
def init(
    local: Local,
    name: str,
    addresses: tuple[str, ...],
    networks: tuple[str, ...],
    virtual_addresses: str,
    virtual_addresses_v6: str | None,
) -> None:
    """Write a commented configuration file."""
    if local.path.exists():
        raise UsageError(f"{local.path} is there already; edit it, or move it away first.")
    answers = Answers(
        name=name,
        addresses=addresses,
        networks=networks,
        virtual_addresses=virtual_addresses,
        virtual_addresses_v6=virtual_addresses_v6,
    )
    _write(local.path, render(answers))
    click.echo(
        f"Wrote {local.path}.\n"
        "Next: correct it; put the certificates that `carnet-provision certificates` makes"
        " beside it;\n"
        "say who may have tunnels with `carnet-target users add`; run `carnet-target serve`."
    )


def _write(path: Path, text: str) -> None:
    private_directory(path.parent)
    write_private(path, text.encode())


@cli.command()
@pass_local
def serve(local: Local) -> None:
    """Answer Hosts, and keep the tunnels, until SIGTERM."""
    from carnet.service import run, start_log
    from target_agent.service import serve as service

    start_log(local.config.observation.log)
    run(service(local.config, settled_driver(local.config.drivers), partial(load, local.path)))


def main() -> None:
    """Run the command."""
    run_command(cli, "carnet-target")
