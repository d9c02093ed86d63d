"""What the kernel tells may be more than there is room for."""

import errno
import os
import socket

import pytest

from carnet.ipsec.netlink import drain


class Kernel:
    """Answers one recv() after another, as a netlink socket would."""

    def __init__(self, *answers):
        self.answers = [*answers, BlockingIOError(errno.EAGAIN, "nothing more")]

    def recv(self, *_):
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


def test_more_than_there_was_room_for_is_no_end():
    kernel = Kernel(b"k", OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)), b"k")
    drain(kernel)
    assert kernel.answers == []


def test_a_socket_that_fails_is_not_asked_for_ever():
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    kernel.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        drain(kernel)
