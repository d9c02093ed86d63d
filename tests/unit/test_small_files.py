"""Files that a person names: one that never ends costs neither time nor memory."""

import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from carnet.audit.commands import read_witnesses
from carnet.config import load_config
from carnet.errors import UsageError
from carnet.files import MAX_SMALL, read_private, read_small
from carnet.secret_sources import read_secret
from host_agent.audit_commands import _read_keys
from host_agent.batch_file import batch_at, officer_key
from provisioning.host_file import read_host_keys, read_transport_key
from provisioning.host_interface import HostInterface
from provisioning.leftover import _is_left, may_be_left
from provisioning.reading_back import check_file
from token_client.booklet import pinned_key, read_cover_bytes
from token_client.config import ClientConfig

ENDLESS = Path("/dev/zero")
MARGIN = 256 * 1024 * 1024


@pytest.fixture(autouse=True)
def little_memory():
    """Let what reads without an end fail soon, and not take the machine with it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MARGIN, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_pipe_is_no_cover_and_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no regular file"):
        read_cover_bytes(tmp_path / "pipe")
    with pytest.raises(UsageError, match="officer's certificate"):
        pinned_key(ClientConfig(officer=tmp_path / "pipe"))


def secret(**source):
    given = {"fd": None, "file": None} | source
    return read_secret("the PIN", option="pin", **given, variable="NO_SUCH")


@pytest.mark.parametrize(
    "read",
    [
        lambda: secret(file=ENDLESS),
        lambda: secret(fd=os.open(ENDLESS, os.O_RDONLY)),
        lambda: read_private(ENDLESS, "the officer's key"),
        lambda: read_witnesses([ENDLESS]),
        lambda: _read_keys([ENDLESS]),
        lambda: read_transport_key(ENDLESS),
        lambda: read_host_keys(ENDLESS),
        lambda: officer_key(ENDLESS),
        lambda: load_config(ENDLESS, ClientConfig),
    ],
    ids=[
        "--pin-file",
        "--pin-fd",
        "key",
        "--head",
        "--key",
        "transport key",
        "host keys",
        "officer",
        "configuration",
    ],
)
def test_a_source_that_never_ends_is_refused(read):
    with pytest.raises(UsageError):
        read()


def test_a_batch_that_never_ends_is_none():
    assert not may_be_left(ENDLESS)
    assert not _is_left(ENDLESS, SimpleNamespace(verification_key=None), frozenset())
    with pytest.raises(UsageError, match="cannot be read back"):
        check_file(ENDLESS, SimpleNamespace(verification_key=None), None)


@pytest.fixture
def pipe(tmp_path):
    """A pipe with a name, into which nobody writes."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.timeout(20)
def test_a_batch_or_head_is_a_regular_file(pipe):
    for path in (pipe, ENDLESS):
        with pytest.raises(UsageError, match="no regular file"), batch_at(path, None):
            pass
        with pytest.raises(UsageError, match="no regular file"):
            read_witnesses([path])
        with pytest.raises(UsageError, match="no regular file"):
            HostInterface("office", "https://127.0.0.1:1", None).send(path)


def test_what_is_as_long_as_allowed_is_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * MAX_SMALL)
    assert len(read_small(file)) == MAX_SMALL
    file.write_bytes(b"x" * (MAX_SMALL + 1))
    with pytest.raises(OSError, match="too large"):
        read_small(file)


def test_a_pipe_is_read_to_its_end():
    reading, writing = os.pipe()
    os.write(writing, b"4711\n")
    os.close(writing)
    assert secret(file=Path(f"/dev/fd/{reading}")) == "4711"
    os.close(reading)
