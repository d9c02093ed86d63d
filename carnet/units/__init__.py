"""The units by which systemd runs the agents."""

import re
import shutil
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from carnet.errors import UsageError

UNITS = Path("/etc/systemd/system")
SYSUSERS = Path("/etc/sysusers.d")
DAEMON = "ike-daemon.conf"
PIN = Path("/etc/carnet/hsm.pin")
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108
"""By ProtectHome and PrivateTmp."""
_ACCOUNTS = {"carnet-helper": "g carnet -\n"}
"""What an agent needs in the place of a user of its own: who may call the helper."""
_NONE: Mapping[str, str] = {}
_PLAIN = re.compile(r"/[A-Za-z0-9._/-]+")


def render(agent: str, command: Path, config: Path) -> str:
    """Return the unit of `carnet-host` or `carnet-target`; raises UsageError.

    What systemd would read as more than a path is none.
    """
    values = {"COMMAND": str(command), "CONFIG": str(config), "PIN": str(PIN)}
    for path in values.values():
        if not _PLAIN.fullmatch(path):
            raise UsageError(f"systemd could misread {path!r}; use letters, digits and -_./ alone")
    here = files(__package__)
    text = (here / f"{agent}.service").read_text()
    values["HARDENING"] = (here / "hardening").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def install(agent: str, config: Path, root: Path, wants: Mapping[str, str] = _NONE) -> None:
    """Write unit and user of an agent below a root directory, and say what comes next.

    `wants` are the texts of drop-ins of the unit, by name.
    """
    command = _command(agent)
    user = _ACCOUNTS.get(agent, f'u {agent} - "Carnet" /var/lib/{agent} /usr/sbin/nologin\n')
    written = {
        UNITS / f"{agent}.service": render(agent, command, config.absolute()),
        SYSUSERS / f"{agent}.conf": user,
        **{UNITS / f"{agent}.service.d" / name: text for name, text in wants.items()},
    }
    for path, text in written.items():
        place = root / path.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(0o644)
        click.echo(f"Wrote {place}.")
    for program in {str(command), str(Path(sys.executable).resolve())}:
        if program.startswith(_HIDDEN):
            click.echo(f"The unit hides {program}; install Carnet below /opt or /usr.", err=True)
    click.echo(f"Next: systemd-sysusers; systemctl daemon-reload; systemctl enable --now {agent}")


def _command(agent: str) -> Path:
    beside = str(Path(sys.executable).parent)
    found = shutil.which(agent, path=beside) or shutil.which(agent)
    if found is None:
        raise UsageError(f"There is no program {agent} on the PATH; install Carnet first.")
    return Path(found).absolute()


def started_with(unit: str | None) -> dict[str, str]:
    """Return the drop-in by which Target's unit has systemd start the IKE daemon that it drives.

    Nothing that a unit wants is taken back by a drop-in: so it is in one, and not in the unit.
    """
    if unit is None:
        click.echo(
            "Nothing tells which IKE daemon is to be started with it; set `driver` under `[ipsec]`"
            " in the configuration, and run this again.",
            err=True,
        )
    wanted = "# None, for none was named.\n" if unit is None else f"Wants={unit}.service\n"
    return {DAEMON: f"# The IKE daemon that carries the tunnels.\n[Unit]\n{wanted}"}


def install_command(agent: str, *, drives: bool = False) -> click.Command:
    """Return the command `install-units` of an agent; its configuration is chosen before.

    `drives`: whether it cannot do without an IKE daemon.
    """

    @click.command("install-units", help=f"Write the systemd unit of {agent}, and its user.")
    @click.option(
        "--root",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("/"),
        show_default=True,
        help="Below which directory to write.",
    )
    @click.pass_obj
    def command(chosen: Any, root: Path) -> None:
        path = chosen if isinstance(chosen, Path) else chosen.path
        install(agent, path, root, started_with(chosen.meant_unit()) if drives else _NONE)

    return command


host, target = install_command("carnet-host"), install_command("carnet-target", drives=True)
helper = install_command("carnet-helper")
