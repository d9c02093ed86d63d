"""A TPM of a machine: swtpm's, with the resource manager that tpm2-pkcs11 needs.

Both are real; that the TPM is software does not show at its interface. Programs reach
it over the machine's own message bus.
"""

from pathlib import Path

from lab.machine import Machine
from lab.waiting import wait_until

TPM2_PKCS11 = "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1"

_PORT = 2321
_BUS = "/run/bus"
_NAME = "com.intel.tss2.Tabrmd"


class Tpm:
    """A TPM that is new when it is made, and gone with its machine; the machine has loopback."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        state, self._store = machine.directory / "tpm", machine.directory / "tpm2-pkcs11"
        state.mkdir(mode=0o700)
        self._store.mkdir(mode=0o700)
        self._start_tpm(state)
        self._start_bus()
        self._start_resource_manager()

    @property
    def environment(self) -> dict[str, str]:
        """What a process outside of the machine needs to be told to reach the TPM."""
        return self._told(self._machine.path(_BUS))

    @property
    def environment_inside(self) -> dict[str, str]:
        """The same for a process of the machine."""
        return self._told(Path(_BUS))

    def _told(self, bus: Path) -> dict[str, str]:
        return {
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}",
            "TPM2_PKCS11_TCTI": "tabrmd:bus_type=session",
            "TPM2_PKCS11_STORE": str(self._store),
            "TPM2_PKCS11_LOG_LEVEL": "0",
            "TSS2_LOG": "all+NONE",
        }

    def _start_tpm(self, state: Path) -> None:
        local = "bindaddr=127.0.0.1"
        self._machine.start(
            [
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}"),
                *("--server", f"type=tcp,port={_PORT},{local}"),
                *("--ctrl", f"type=tcp,port={_PORT + 1},{local}"),
                *("--flags", "not-need-init,startup-clear"),
            ],
            log="swtpm.log",
        )
        self._machine.wait_for_port(_PORT)

    def _start_bus(self) -> None:
        self._machine.start(
            ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address=unix:path={_BUS}"],
            log="dbus.log",
        )
        self._machine.wait_for_path(_BUS)

    def _start_resource_manager(self) -> None:
        address = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={_BUS}"}
        tcti = f"--tcti=swtpm:host=127.0.0.1,port={_PORT}"
        self._machine.start(
            ["tpm2-abrmd", "--allow-root", "--session", tcti], log="abrmd.log", extra=address
        )
        wait_until(lambda: self._has_owner(address), "the TPM's resource manager")

    def _has_owner(self, address: dict[str, str]) -> bool:
        asked = self._machine.run(
            [
                *("dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus"),
                *("/", "org.freedesktop.DBus.NameHasOwner", f"string:{_NAME}"),
            ],
            extra=address,
            check=False,
        )
        return "true" in asked.stdout
