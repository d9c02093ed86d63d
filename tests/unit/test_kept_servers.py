"""What is kept of name servers: an ordinary user puts none there for root, nor keeps her waiting.

`/dev/shm` has no directory of root's as a rule, and whoever comes first can make one of its name.
"""

import os
from pathlib import Path

import msgspec
import pytest

from carnet.files import MAX_SMALL
from carnet.ipsec.inside import Here, resolved

NAME = "carnet-" + "e" * 32
EVE = 61003
RECORD = {
    "name": NAME,
    "servers": ["192.0.2.53"],
    "interface": "none0",
    "before": {"dns": ["203.0.113.66"], "domain": ["~."]},
}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A record in root's other directory."""
    file = tmp_path / "carnet-0" / "name-servers.json"
    file.parent.mkdir(mode=0o700)
    file.write_bytes(msgspec.json.encode(RECORD))
    file.chmod(0o600)
    monkeypatch.setattr(resolved, "_KEPT", (file.parent,))
    return file


@pytest.fixture
def here(tmp_path):
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    return Here(own)


def a_link(path: Path) -> None:
    away = path.rename(path.with_name("away"))
    path.symlink_to(away)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o666)


WAYS = {
    "her directory": lambda file: os.chown(file.parent, EVE, EVE),
    "a directory that she writes to": lambda file: file.parent.chmod(0o1777),
    "a directory that a group writes to": lambda file: file.parent.chmod(0o770),
    "a link to a directory": lambda file: a_link(file.parent),
    "her file": lambda file: os.chown(file, EVE, EVE),
    "a file that she writes to": lambda file: file.chmod(0o666),
    "a link to a file": a_link,
    "a pipe": a_pipe,
    "a long one": lambda file: file.write_bytes(file.read_bytes().ljust(MAX_SMALL + 1)),
}


def test_what_root_has_kept_elsewhere_is_put_back(kept, here):
    assert here.restore_servers(NAME)
    assert not kept.exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_somebody_else_can_have_put_there_is_no_record(kept, here, way):
    way(kept)
    assert here.whose_servers() is None
    assert not here.restore_servers(NAME)
    assert os.path.lexists(kept)


def test_none_are_used_where_what_is_kept_would_be_no_record(tmp_path):
    """Nobody would put back what there was."""
    tmp_path.chmod(0o777)
    trouble = resolved.Resolved(tmp_path).use(NAME, ["192.0.2.53"])
    assert trouble == f"others can write to {tmp_path}"
    assert list(tmp_path.iterdir()) == []
