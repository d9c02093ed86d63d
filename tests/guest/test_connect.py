"""`carnet connect` where the kernel carries everything: one office, told and made anew in turn.

A guest, and an office in it, take longer to begin than most of this takes. So each part goes
on with the office as the part before has left it.
"""

import pytest

from tests.guest.opening import open_office, share_office

from tests.guest.objectives import *  # noqa: F403  isort: skip
from tests.guest.ikev1 import *  # noqa: F403  isort: skip
from tests.guest.libreswan import *  # noqa: F403  isort: skip


def prepare_outside(directory, shared):
    share_office(directory, shared)


@pytest.fixture(scope="module")
def office(lane):
    with open_office(lane, __file__) as made:
        yield made
