"""`carnet-target serve`: the parts put together, until told to stop."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from carnet.database import open_database
from carnet.errors import UsageError
from carnet.ipsec.driver import Driver
from carnet.link import server_context
from carnet.service import serve_until_stopped
from target_agent.agent import Agent
from target_agent.config import TargetConfig
from target_agent.control import control_socket, sole_hold
from target_agent.server import Server


@contextlib.contextmanager
def database(config: TargetConfig) -> Iterator[Engine]:
    """Open the Target's database; raises UsageError where that is not possible."""
    try:
        engine = open_database(config.database, "target_agent")
    except (OSError, SQLAlchemyError) as error:
        raise UsageError(
            f"Cannot open the database {config.database}: {error.args[-1]};"
            " check the directory in the configuration."
        ) from error
    try:
        yield engine
    finally:
        engine.dispose()


async def serve(config: TargetConfig, driver: Driver) -> None:
    """Serve until SIGTERM or SIGINT; raises CarnetError where it cannot start."""
    link = server_context(config.link.certificate, config.link.key, config.link.authority)
    with sole_hold(config.lock) as alone, database(config) as engine:
        if not alone:
            raise UsageError(
                f"Another carnet-target serves from {config.directory}; stop that one first."
            )
        agent = Agent(config, driver, engine)
        await agent.start()
        try:
            async with control_socket(agent, config.control_socket):
                application = Server(agent).application()
                await serve_until_stopped(application, config.listen, config.port, link)
        finally:
            await agent.stop()
