"""`carnet agent`."""

import click

from carnet import interruption
from carnet.errors import UsageError
from token_client import config as configuration
from token_client import supervising
from token_client.commands.drivers import driver
from token_client.commands.shared import tell
from token_client.memory import memory_directory
from token_client.sessions import SessionStore


@click.command()
@click.argument("tunnel", required=False)
@click.option("--worker", is_flag=True, hidden=True)
def agent(tunnel: str | None, worker: bool) -> None:
    """Watch over TUNNEL and its token, as `carnet connect` has it done in the background."""
    interruption.listen()
    config = configuration.load()
    sessions = SessionStore(memory_directory()).choose(tunnel)
    if len(sessions) != 1:
        raise UsageError("Say which tunnel to watch over; `carnet status` shows those there are.")

    def work() -> None:
        now = configuration.load()
        supervising.work(driver(now, sessions[0]), sessions[0], now, tell)

    if worker:
        work()
    else:
        supervising.supervise(work, driver(config, sessions[0]), sessions[0], config)
