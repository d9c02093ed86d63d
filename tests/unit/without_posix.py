"""The traveller's command without what Windows' Python lacks; each argument is a command line."""

import os
import select
import signal
import socket
import sys
import time

import platformdirs.unix  # noqa: F401  has another part for Windows, and chooses by the system

from token_client.entry import main

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
NAMES = {
    os: "eventfd eventfd_write getegid geteuid getgid getuid pidfd_open setsid sysconf"
    " O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_PATH",
    select: "epoll poll",
    signal: "ITIMER_REAL SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2"
    " pthread_sigmask setitimer",
    socket: "AF_NETLINK AF_UNIX MSG_DONTWAIT SO_PEERCRED recv_fds send_fds",
    time: "CLOCK_BOOTTIME CLOCK_MONOTONIC clock_gettime clock_gettime_ns",
}
"""What the Python documentation calls available on Unix alone, as far as Carnet uses it."""

if __name__ == "__main__":
    sys.modules |= dict.fromkeys(MODULES)
    for module, names in NAMES.items():
        for name in names.split():
            delattr(module, name)
    for line in sys.argv[1:]:
        sys.argv = ["carnet", *line.split()]
        try:
            main()
        except SystemExit as end:
            sys.stdout.write(f"{line}: {end.code}\n")
