"""What every test run says first."""

import contextlib
import gc
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from carnet.ipsec.kernel import kernel_has_esp
from lab.charon import Lane
from lab.template import Template, in_use
from tests.guest import matrix
from tests.guest.boots import order_of, scope_of
from tests.guest.bridge import is_inside

if not is_inside():  # where nothing uses it, and it takes long to load
    from hypothesis import settings

    # The same examples every time, so that a failure is of this change and no other.
    settings.register_profile(
        "test", max_examples=400, derandomize=True, database=None, print_blob=True
    )
    # Many more, and others every time.
    settings.register_profile("soak", max_examples=20_000, database=None, print_blob=True)
    settings.load_profile("test")

_MEMORY = [Path("/run/carnet-client"), Path(f"/dev/shm/carnet-{os.getuid()}")]  # noqa: S108
"""Where `carnet` keeps what reaches no disk, outside of the lab's machines."""
_MADE: pytest.StashKey[list[Path]] = pytest.StashKey()
"""Those that were not there before the tests."""

# A shell that runs this in the background has SIGINT ignored, nohup has SIGHUP, and
# children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection():
    """Look for no garbage while what stays is loaded, nor among it later: half of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_itemcollected(item):
    """Name the operation: pytest does not take it from schemathesis's name for an item."""
    operation = getattr(item, "operation_label", None)
    if operation is not None and operation not in item.nodeid:
        item._id = item._id.with_params(operation)


def pytest_collection_modifyitems(items):
    """Refuse two tests of one node ID, of which xdist would run the first alone; sort them."""
    twice = [each for each, times in Counter(item.nodeid for item in items).items() if times > 1]
    if twice:
        raise pytest.UsageError(f"Each test needs a name of its own: {', '.join(twice)}")
    items.sort(key=lambda item: order_of(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config):
    """Have workers fork from a process that has loaded what this run was asked for."""
    from tests.workers import forked_workers  # noqa: PLC0415

    forking = contextlib.ExitStack()
    forking.enter_context(forked_workers(config.args))
    config.add_cleanup(forking.close)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each worker whole files, and whole boots of guest kernels."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 (not loaded in a guest)

    class ByBoot(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return scope_of(nodeid)

    return ByBoot(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_runtest_logreport(report):
    matrix.collect(report)


def pytest_sessionstart(session):
    session.config.stash[_MADE] = [path for path in _MEMORY if not path.exists()]


def pytest_sessionfinish(session):
    if not is_inside() and not hasattr(session.config, "workerinput"):
        matrix.write()
        for path in session.config.stash[_MADE]:
            with contextlib.suppress(OSError):  # there is none, or somebody has something in it
                path.rmdir()


def pytest_report_header():
    lane = Lane.KERNEL if kernel_has_esp() else Lane.USERSPACE
    return f"tunnels: {lane.sentence}"


@pytest.fixture(scope="session", autouse=True)
def _commands_fork():
    """Commands fork from a process that has loaded what they stand on: there are thousands."""
    if is_inside():
        yield
        return
    with Template() as template, in_use(template):
        yield


@pytest.fixture(scope="session", autouse=True)
def reader_socket(tmp_path_factory):
    """Name pcscd's socket once and for all: libpcsclite reads the name but once, at any look."""
    path = tmp_path_factory.mktemp("pcsc") / "pcscd.comm"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCSCLITE_CSOCK_NAME", str(path))
        yield path


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server of this test process's own, which syncs what it writes."""
    from lab.postgresql import postgres_machine  # noqa: PLC0415  long to load, in a guest above all

    with postgres_machine() as machine:
        yield machine.start()
