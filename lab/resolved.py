"""systemd-resolved on a machine, with a D-Bus of its own: what looks names up there.

Both as Debian has them. The machine's /etc gets a layer of its own: its resolv.conf leads to
systemd-resolved, and its user is known.
"""

import shutil

from lab.errors import LabError
from lab.machine import Machine
from lab.process import Process

PROGRAM = "/usr/lib/systemd/systemd-resolved"
_BUS = "/run/dbus/system_bus_socket"
_STUB = "/run/systemd/resolve/stub-resolv.conf"

_PREPARE = f"""
mkdir -p /run/etc/upper /run/etc/work /run/dbus /run/systemd/resolve
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work lab /etc
echo systemd-resolve:x:61010:61010::/:/usr/sbin/nologin >>/etc/passwd
chown 61010:61010 /run/systemd/resolve
ln -sf {_STUB} /etc/resolv.conf
mkdir -p /etc/systemd
printf '[Resolve]\\nLLMNR=no\\nMulticastDNS=no\\nDNSSEC=no\\nCache=no\\nFallbackDNS=\\n' \
>/etc/systemd/resolved.conf
cat >/run/dbus/lab.conf
"""

_BUS_CONFIGURATION = f"""<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={_BUS}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class Resolved:
    """The service of one machine, which ends with the machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._service: Process

    def start(self) -> None:
        """Start it, and return when it answers."""
        if shutil.which("resolvectl") is None:
            raise LabError("systemd-resolved is missing: run scripts/install as root.")
        self.machine.run(["sh", "-ec", _PREPARE], stdin=_BUS_CONFIGURATION)
        self.machine.start(
            ["dbus-daemon", "--config-file=/run/dbus/lab.conf", "--nofork", "--nopidfile"],
            log="dbus.log",
        )
        self.machine.wait_for_path(_BUS)
        self.start_again()

    def start_again(self) -> None:
        """Start it where it has run before, and return when it answers."""
        self._service = self.machine.start([PROGRAM], log="resolved.log")
        self._service.wait_for(self._answers, "its name on the bus")

    def kill(self) -> None:
        """End it at once."""
        self._service.kill()

    def _answers(self) -> bool:
        return self.machine.run(["resolvectl", "dns"], check=False).returncode == 0

    def links(self) -> list[str]:
        """Return what each interface has, of which it has anything: servers, and domains."""
        said = (self.machine.run(["resolvectl", what]).stdout for what in ("dns", "domain"))
        lines = (line.strip() for each in said for line in each.splitlines())
        return [line for line in lines if not line.endswith(":")]

    def address_of(self, name: str) -> str | None:
        """Look a name up."""
        asked = ["resolvectl", "--legend=no", "query", name]
        done = self.machine.run(asked, check=False)
        return done.stdout.partition(f"{name}: ")[2].split()[0] if not done.returncode else None
