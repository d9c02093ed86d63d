"""`carnet doctor`."""

from functools import partial
from pathlib import Path

import click

from carnet.findings import show
from token_client import config as configuration
from token_client import doctor as examination
from token_client.commands.drivers import use_privileges
from token_client.commands.shared import json_option, reach_options, token_option


@click.command()
@token_option
@reach_options
@json_option
def doctor(
    token: str | None,
    cover: Path | None,
    officer: Path | None,
    module: str | None,
    as_json: bool,
) -> int:
    """Say what is right, and what to do where something is not."""
    shown = partial(show, as_json=as_json)
    config = configuration.load(cover=cover, officer=officer, module=module)
    use_privileges(config)
    return shown(examination.examine(config, token, shown))
