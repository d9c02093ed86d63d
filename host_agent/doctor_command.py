"""`carnet-host doctor`."""

from functools import partial
from pathlib import Path

import click

from carnet.findings import show
from host_agent.doctor import examine


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.pass_obj
def doctor(path: Path, as_json: bool) -> int:
    """Say what is right, and what to do where something is not; no PIN is needed.

    The exit status says whether `carnet-host serve` could work.
    """
    shown = partial(show, as_json=as_json)
    return shown(examine(path, shown))
