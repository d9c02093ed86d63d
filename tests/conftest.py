"""What every test run says first."""

import signal

from carnet.ipsec.kernel import kernel_has_esp
from lab.charon import Lane

# A shell that runs this in the background has SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    lane = Lane.KERNEL if kernel_has_esp() else Lane.USERSPACE
    return f"tunnels: {lane.sentence}"
