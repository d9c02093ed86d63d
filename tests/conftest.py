"""What every test run says first."""

import signal

import pytest

from carnet.ipsec.kernel import kernel_has_esp
from lab.charon import Lane
from lab.postgresql import postgres_machine

# A shell that runs this in the background has SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    lane = Lane.KERNEL if kernel_has_esp() else Lane.USERSPACE
    return f"tunnels: {lane.sentence}"


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server of this test process's own, which syncs to disk."""
    with postgres_machine() as machine:
        yield machine.start()
