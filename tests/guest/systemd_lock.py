"""`on_removal = "lock"` at a real logind: the screen of the traveller's own session is locked.

By `make systemd`. The session is made as pam_systemd would, on a bus of the guest's own. What
locks the screen on a desktop, when it hears this signal, is the desktop's own program.
"""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.guest.units import OPT, install_carnet, run

SYSTEMD = True
TRAVELLER = 65534
UNITS = Path("/run/systemd/system")
EARLY = "[Unit]\nDefaultDependencies=no\n"
SOCKET = f"{EARLY}[Socket]\nListenStream=/run/dbus/system_bus_socket\n"
SERVICE = f"""{EARLY}[Service]
ExecStart=dbus-daemon --config-file={UNITS}/bus.conf --address=systemd: --nofork --nopidfile
"""
BUS = """<busconfig>
<type>system</type>
<listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth>
<policy context="default">
<allow user="*"/><allow own="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
</policy>
</busconfig>
"""
LOCKING = """
import sys
from token_client.config import ClientConfig
from token_client.removal import lock_screen
sys.stdin.readline()
print(lock_screen(ClientConfig().lock_command), flush=True)
"""
MANAGER = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
SIGNAL = "type='signal',interface='org.freedesktop.login1.Session',member='Lock'"


@contextmanager
def started(*argv, **environment):
    """Run a program beside the test, and end it."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(argv, **pipes, text=True, env=environment or None) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def logind():
    """A system bus, and logind, which starts no manager of each user's here."""
    install_carnet()
    for name, text in ("bus.conf", BUS), ("dbus.socket", SOCKET), ("dbus.service", SERVICE):
        (UNITS / name).write_text(text)
    for name in ("user@.service", "user-runtime-dir@.service"):
        (UNITS / name).symlink_to("/dev/null")
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "dbus.socket", "dbus.service")
    run("systemctl", "start", "systemd-logind")


@pytest.fixture
def traveller(logind):
    """A program of hers that locks when it is told to, and the session that it is in."""
    python = OPT / "python" / "bin" / Path(sys.executable).resolve().name
    unprivileged = ["setpriv", f"--reuid={TRAVELLER}", f"--regid={TRAVELLER}", "--clear-groups"]
    argv = [*unprivileged, str(python), "-c", LOCKING]
    path = f"{OPT}/source:{OPT}/packages"
    with started(
        *argv, PATH="/usr/bin:/bin", PYTHONPATH=path, LD_LIBRARY_PATH=f"{OPT}/python/lib"
    ) as leader:
        who = ("uusssssussbssa(sv)", str(TRAVELLER), str(leader.pid))
        what = ("carnet", "unspecified", "user", "", "", "0", "", "", "false", "", "", "0")
        yield leader, run("busctl", "call", *MANAGER, "CreateSession", *who, *what).split('"')[3]


def test_the_signal_to_lock_goes_to_the_session_of_the_traveller(traveller):
    leader, session = traveller
    with started(
        "timeout", "30", "busctl", "monitor", "--json=short", f"--match={SIGNAL}"
    ) as monitor:
        assert "Monitoring" in monitor.stderr.readline()
        said, _ = leader.communicate("lock\n", timeout=60)
        assert said == "None\n"
        heard = json.loads(monitor.stdout.readline())
    assert (heard["member"], heard["path"]) == ("Lock", session)
