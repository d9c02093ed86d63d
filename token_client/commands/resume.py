"""`carnet resume`."""

import time

import click

from carnet import console
from carnet.errors import AwayError, DaemonGoneError, IKERefusedError
from token_client import background, mtu, name_servers
from token_client import config as configuration
from token_client.commands.drivers import driver
from token_client.commands.shared import json_option, tell
from token_client.memory import memory_directory
from token_client.returning import bring_back
from token_client.sessions import SessionStore


@click.command()
@click.argument("tunnel", required=False)
@json_option
def resume(tunnel: str | None, as_json: bool) -> None:
    """Bring TUNNEL back that was lost, or all tunnels, without a new key pair."""
    config = configuration.load()
    chosen = SessionStore(memory_directory()).choose(tunnel)
    for session in chosen:
        if not session.lives:
            tell(background.finish_what_was_ended(session, config))
    known = [s for s in chosen if s.lives]
    told = len(known) < len(chosen)
    # What is over keeps no other from coming back, and is refused where it was meant.
    sessions = [session for session in known if not session.is_over(time.time())] or known
    for session in sessions:
        try:
            daemon = driver(config, session)
            bring_back(daemon, session)
            mtu.lead(daemon, session)
        except IKERefusedError as error:
            raise background.ask_on(session, config, error) from error
        except (AwayError, DaemonGoneError):
            # It may come back all the same, as soon as there is an answer; and where the daemon
            # is gone, the kernel may carry it on. So are those that nobody has come to yet.
            for each in sessions:
                background.leave_to_agent(each, config)
            raise
        name_servers.use_again(session)
        background.start(session, config)
        mtu.fit(session)
    if as_json:
        console.print_json([session.name for session in sessions])
    else:
        names = ", ".join(session.target for session in sessions)
        if sessions or not told:
            click.echo(f"The tunnel to {names} stands." if sessions else "There is no tunnel.")
