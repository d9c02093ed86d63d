"""What every test run says first."""

from carnet.ipsec.kernel import kernel_has_esp
from lab.charon import Lane


def pytest_report_header():
    lane = Lane.KERNEL if kernel_has_esp() else Lane.USERSPACE
    return f"tunnels: {lane.sentence}"
