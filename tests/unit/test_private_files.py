"""What a writing leaves that was killed, and who takes it away."""

import fcntl
import subprocess
import sys

import pytest

from carnet.files import write_private

WRITING = """
import sys
from pathlib import Path
from carnet.files import write_private
write_private(Path(sys.argv[1]), b"secret")
"""


@pytest.fixture
def left(tmp_path):
    """What a writing of `key` has left that was killed before it was done."""
    argv = [sys.executable, "-c", WRITING, tmp_path / "key"]
    subprocess.run(argv, env={"CARNET_CRASH_AT": "files.synced key"}, check=False)
    (file,) = tmp_path.iterdir()
    assert (file.name.startswith(".key."), file.read_bytes()) == (True, b"secret")
    return file


def test_what_a_killed_writing_left_goes_with_the_next(left):
    write_private(left.with_name("key"), b"another")
    assert [each.name for each in left.parent.iterdir()] == ["key"]
    assert left.with_name("key").read_bytes() == b"another"


def test_another_file_is_left_alone(left):
    for name in (".key.abcdefg", ".key.abcd.fgh", "key.abcdefgh", ".keys.abcdefgh"):
        left.with_name(name).write_bytes(b"not ours")
    before = set(left.parent.iterdir()) - {left}
    write_private(left.with_name("key"), b"another")
    write_private(left.with_name("ke"), b"another")
    assert set(left.parent.iterdir()) == before | {left.with_name("key"), left.with_name("ke")}


def test_what_another_process_writes_now_is_left_alone(left):
    empty = left.with_name(".key.00000000")
    empty.touch()
    with left.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_private(left.with_name("key"), b"another")
        assert left.exists()
    write_private(left.with_name("key"), b"another")
    assert not left.exists()
    assert empty.exists()
