"""What the kernel tells of SAs may be more than there is room for."""

import errno
import os

import pytest

from carnet.ipsec.libreswan_watch import Watch


class Kernel:
    """Answers one recv() after another, as a netlink socket would."""

    def __init__(self, *answers):
        self.answers = [*answers, BlockingIOError(errno.EAGAIN, "nothing more")]

    def recv(self, *_):
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture
def watch():
    """A watch without a daemon: nothing is asked of it."""
    return Watch.__new__(Watch)


def test_more_than_there_was_room_for_is_no_end(watch):
    kernel = Kernel(b"k", OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)), b"k")
    watch._netlink = kernel
    watch._drain()
    assert kernel.answers == []


def test_another_error_is_not_passed_over(watch):
    watch._netlink = Kernel(OSError(errno.EBADF, os.strerror(errno.EBADF)))
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        watch._drain()
