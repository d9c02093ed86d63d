"""Each objective by `carnet connect`, with Target at an address of either IP version."""

import pytest

from tests.guest.cases import cases, check
from tests.guest.opening import open_office, share_office


def prepare_outside(directory, shared):
    share_office(directory, shared)


@pytest.fixture(scope="module")
def office(lane):
    with open_office(lane, __file__) as made:
        yield made


@pytest.mark.parametrize("case", [*cases(4), *cases(6)], ids=str)
def test_what_passes_is_what_the_objective_says(office, case, record_property):
    check(office, case)
    record_property("matrix", case.row)
