"""A real kernel as an ordinary process: User-mode Linux on this machine's own root.

For what the machine's kernel lacks (ESP, AH, netem). Nothing is copied: the guest sees
the root file system read-only through hostfs, and one directory that it may write to.
It has one processor, a file system in memory for /run, and its modules loaded.

The kernel and the processes in it are processes of this machine, which take turns at each
system call and page fault. All are kept on one of its processors: turns across two of them
take half as long again.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.errors import LabError
from lab.process import only_child
from lab.scratch import Scratch
from lab.waiting import IN_GUEST, wait_until

KERNEL = "linux.uml"
MEMORY = "768M"
OUT = Path("/run/out")
"""Where the guest sees the directory that it may write to."""
MODULES = (
    *("veth", "tun", "af_packet", "xfrm_user", "af_key", "sch_netem"),
    *("esp4", "ah4", "esp6", "ah6", "xfrm4_tunnel", "xfrm6_tunnel", "ipcomp"),
    *("authenc", "seqiv", "echainiv", "gcm", "ccm", "ctr", "cbc", "ghash-generic"),
    *("hmac", "md5", "sha1_generic", "sha256_generic", "sha512_generic", "cmac", "xcbc"),
    *("aes_generic", "des_generic", "crypto_null", "drbg"),
    *("chacha20poly1305", "chacha_generic", "poly1305_generic"),
    *("iptable_filter", "iptable_nat", "ip6table_filter", "ip6table_nat", "xt_MASQUERADE"),
    *(
        "ip6t_ah",
        "ipt_REJECT",
        "ip6t_REJECT",
        "xt_conntrack",
        "xt_policy",
        "xt_comment",
        "xt_tcpudp",
        "xt_multiport",
    ),
)
"""Whatever the tests need is loaded at the start; later the guest loads none."""

_REGISTERS = Path(sys.prefix, "lib", "guest_registers.so")
"""Of guest_registers.c, made by scripts/install: without it none boots on a processor with AMX."""
_INIT = Path(__file__).with_name("guest_init.sh")
_SYSTEMD = Path(__file__).with_name("guest_systemd.sh")


class Guest:
    """One boot of a guest kernel that runs one command; a context manager that ends it.

    `directory` is the one that the guest may write to, where it is /run/out; `files` are
    put there beforehand, and what `prepare` makes. What the command printed is in `output`.
    With `systemd` that is its first process, and the command a unit of it.
    `place` spreads guests over the machine's processors: those of like numbers share one.

    Raises LabError where there is no such kernel.
    """

    def __init__(
        self,
        argv: Sequence[str],
        working_directory: Path,
        files: Mapping[str, str] | None = None,
        prepare: Callable[[Path], None] | None = None,
        place: int = 0,
        systemd: bool = False,
    ) -> None:
        if shutil.which(KERNEL) is None:
            raise LabError("There is no guest kernel: install the package user-mode-linux.")
        self._scratch = Scratch("carnet-guest-")
        self.directory = self._scratch.directory
        try:
            self._write_orders(argv, working_directory)
            if systemd:
                shutil.copy(_SYSTEMD, self.directory / "systemd")
            for name, text in (files or {}).items():
                (self.directory / name).write_text(text)
            if prepare is not None:
                prepare(self.directory)
            self._kernel = self._boot(place)
        except BaseException:
            self._scratch.close()
            raise

    def _boot(self, place: int) -> "subprocess.Popen[bytes]":
        processors = sorted(os.sched_getaffinity(0))
        one = ("taskset", "--cpu-list", str(processors[place % len(processors)]))
        with (self.directory / "console").open("wb") as console:
            return subprocess.Popen(
                [*one, *_OWN_PIDS, "env", f"LD_PRELOAD={_REGISTERS}", KERNEL, *self._parameters()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={"HOME": str(self.directory), "PATH": os.environ["PATH"]},
                start_new_session=True,
            )

    def _write_orders(self, argv: Sequence[str], working_directory: Path) -> None:
        (self.directory / "modules").write_text(" ".join(MODULES))
        shutil.copy(_INIT, self.directory / "init")
        command = self.directory / "command"
        command.write_text(
            f"#!/bin/sh\ncd {shlex.quote(str(working_directory))} || exit\n"
            f"{IN_GUEST}=1 exec {shlex.join(argv)}\n"
        )
        for script in (command, self.directory / "init"):
            script.chmod(0o700)

    def _parameters(self) -> list[str]:
        return [
            *(f"mem={MEMORY}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
            *(f"init={self.directory / 'init'}", f"CARNET_GUEST={self.directory}"),
            *("con=null", "con0=null,fd:1", f"uml_dir={self.directory}/"),
        ]

    @property
    def pid(self) -> int:
        """The kernel's first process, as this machine sees it."""
        wait_until(lambda: only_child(self._kernel.pid) is not None, "the guest kernel to start")
        pid = only_child(self._kernel.pid)
        if pid is None:
            raise LabError(f"The guest kernel ended as it started. {self.said()}")
        return pid

    @property
    def running(self) -> bool:
        """Whether the kernel goes on: it has not powered off, and not panicked, which hangs."""
        return self._kernel.poll() is None and _PANIC not in self._console()

    def _console(self) -> bytes:
        return (self.directory / "console").read_bytes()

    @property
    def status(self) -> int | None:
        """The command's exit status; None if it has none, which is a failure once not running."""
        try:
            return int((self.directory / "status").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def wait(self, seconds: float) -> int:
        """Return the command's exit status.

        Raises LabError if it does not end in time, or the guest without it.
        """
        wait_until(lambda: not self.running, "the guest kernel to power off", seconds)
        if self.status is None:
            raise LabError(f"The guest kernel ended before its command did. {self.said()}")
        return self.status

    def said(self) -> str:
        """Return the end of what the command printed, or else of what the kernel did."""
        for name in ("output", "console"):
            path = self.directory / name
            text = path.read_text(errors="replace").strip() if path.exists() else ""
            if text:
                return text[-_LAST_CHARACTERS:]
        return ""

    def close(self) -> None:
        """End the kernel, however far it is, and remove its directory."""
        if self._kernel.poll() is None:
            os.killpg(self._kernel.pid, signal.SIGKILL)
        self._kernel.wait()
        self._scratch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_OWN_PIDS = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL")
"""The kernel is many processes; in a PID namespace of its own all end with the first, and
that with its maker."""

_LAST_CHARACTERS = 4000
_PANIC = b"Kernel panic"
