"""strongSwan's daemon, one a machine, with all that is its own in the machine's directory."""

import socket
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from carnet.ipsec.kernel import kernel_has_esp
from carnet.ipsec.vici_link import open_session
from lab.daemon import Daemon
from lab.machine import Machine
from lab.privilege import require_tun

VICI = "/run/charon.vici"
"""The daemon's socket, as the machine itself sees it."""
RESOLVED = "/run/resolv.conf"
"""What the plugin `resolve` writes, where it is loaded: /etc is not the machine's own."""

_PLUGINS = (
    "random nonce openssl aes aesni sha1 sha2 md5 hmac kdf gcm ccm ctr chapoly curve25519 gmp"
    " cmac xcbc pem pkcs1 pkcs8 x509 pubkey constraints socket-default counters vici attr"
)


class Lane(Enum):
    """What carries ESP: the value is the plugins that make it so, and a sentence about it."""

    KERNEL = ("kernel-netlink", "ESP is the kernel's own.")
    USERSPACE = (
        "kernel-libipsec kernel-netlink",
        "This kernel has no ESP: strongSwan's userspace ESP carries it.",
    )

    @property
    def plugins(self) -> str:
        """What charon must load for it, in this order."""
        return self.value[0]

    @property
    def sentence(self) -> str:
        """What to tell a person about the choice."""
        return self.value[1]


def choose_lane() -> Lane:
    """Ask the kernel whether it has ESP; raise LabError where nothing can carry it."""
    if kernel_has_esp():
        return Lane.KERNEL
    require_tun()
    return Lane.USERSPACE


def configuration(
    lane: Lane, log: Path, impatient: bool = False, module: Path | None = None, more: str = ""
) -> str:
    """Return a strongswan.conf that loads what is named and nothing under /etc.

    `impatient` is a daemon that takes a peer for dead within a second, and not 165;
    `module` is of PKCS#11, for a daemon that authenticates by a key on a token itself; `more`
    names further plugins.
    """
    tokens = "" if module is None else _TOKENS.format(module=module)
    userspace = "yes" if lane is Lane.USERSPACE else "no"
    return f"""charon-systemd {{{_IMPATIENT if impatient else ""}
    load = {_PLUGINS} {lane.plugins}{" pkcs11" if module else ""} {more}
    plugins {{{tokens}
        resolve {{
            file = {RESOLVED}
        }}
        vici {{
            socket = unix://{VICI}
        }}
        kernel-libipsec {{
            load = {userspace}
        }}
    }}
    filelog {{
        carnet-lab {{
            path = {log}
            default = 1
            flush_line = yes
        }}
    }}
}}
"""


_IMPATIENT = """
    retransmit_timeout = 0.3
    retransmit_base = 1.2
    retransmit_tries = 2"""


_TOKENS = """
        pkcs11 {{
            modules {{
                token {{
                    path = {module}
                }}
            }}
        }}"""


_ASSIGNS = """charon-systemd {{
    plugins {{
        attr {{
            address = {}
        }}
    }}
}}
"""


class Charon(Daemon):
    """The daemon of one machine: start(), then stop() or kill(), and start() again."""

    name = "charon"

    def __init__(
        self,
        machine: Machine,
        lane: Lane,
        *,
        impatient: bool = False,
        module: Path | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(machine)
        self.impatient = impatient
        self.more = ""
        """Further plugins to load, from the next start on."""
        self._module = module
        self._extra = dict(extra or {})
        self.lane = lane

    @property
    def vici(self) -> Path:
        """The VICI socket, as reached from outside the machine."""
        return self.machine.path(VICI)

    def start(self) -> None:
        """Start the daemon and return when its VICI socket answers."""
        for private in (self._conf, self._log):
            private.touch(mode=0o600)
        self._conf.write_text(self._configuration())
        self.vici.unlink(missing_ok=True)
        self._process = self.machine.start(
            ["/usr/sbin/charon-systemd"],
            log="charon.err",
            extra={"STRONGSWAN_CONF": str(self._conf), **self._extra},
        )
        self._process.wait_for(self._answers, "the VICI socket")

    def assign(self, *addresses: str) -> None:
        """Have it assign these to each peer besides, as a rogue Target's may; none: no more."""
        more = _ASSIGNS.format(", ".join(addresses)) if addresses else ""
        self._conf.write_text(self._configuration() + more)
        with open_session(self.vici) as session:
            session.reload_settings()

    @property
    def _conf(self) -> Path:
        return self.machine.directory / "strongswan.conf"

    @property
    def _log(self) -> Path:
        return self.machine.directory / "charon.log"

    def _configuration(self) -> str:
        return configuration(self.lane, self._log, self.impatient, self._module, self.more)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.vici)) == 0
