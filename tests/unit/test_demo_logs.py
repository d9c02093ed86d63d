"""What the demonstration keeps: for its owner alone, and of one run only."""

import fcntl
import os

import pytest

from demo import kept


@pytest.fixture
def world(tmp_path):
    directory = tmp_path / "world" / "router"
    directory.mkdir(parents=True)
    for name in ("capture.pcap", "tcpdump.log", "secret.key"):
        (directory / name).touch(mode=0o644)
    return directory.parent


def test_nobody_else_reads_what_is_kept(world, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "of-an-earlier-run.log").touch()
    kept.keep_logs(world, logs)
    modes = {path.name: path.stat().st_mode & 0o777 for path in logs.iterdir()}
    assert modes == {"router-capture.pcap": 0o600, "router-tcpdump.log": 0o600}
    assert logs.stat().st_mode & 0o777 == 0o700


def test_two_demonstrations_do_not_mix_theirs(world, tmp_path, monkeypatch):
    other, refused = os.open(tmp_path, os.O_RDONLY), []

    def write(path, _):
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refused.append(path.name)

    monkeypatch.setattr(kept, "write_private", write)
    kept.keep_logs(world, tmp_path / "logs")
    os.close(other)
    assert sorted(refused) == ["router-capture.pcap", "router-tcpdump.log"]
