"""Sockets of their owner's alone."""

import os
import socket
import stat

import pytest

from carnet.errors import UsageError
from carnet.unix_socket import bind_private


@pytest.mark.parametrize("long", [False, True])
def test_a_socket_is_its_owners_however_long_its_path(tmp_path, long):
    path = tmp_path / ("d" * 120 if long else "d") / "x.sock"
    for _ in range(2):  # the second replaces the first
        bound = bind_private(path)
    bound.listen()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    directory = os.open(path.parent, os.O_PATH)
    with bound, socket.socket(socket.AF_UNIX) as client:
        client.connect(f"/proc/self/fd/{directory}/{path.name}")
    os.close(directory)


def test_where_there_can_be_none_a_sentence_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Cannot make the socket"):
        bind_private(tmp_path / "file" / "x.sock")
