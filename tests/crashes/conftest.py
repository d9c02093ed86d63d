"""One office for all tests of a module; only what died is started again."""

import pytest

from tests.crashes.killing import mortal_office
from tests.crashes.looks import look
from tests.lab.conftest import lane  # noqa: F401

PAIRS = 60


@pytest.fixture(scope="module")
def office(lane):  # noqa: F811
    with mortal_office(lane, PAIRS) as made:
        yield made
        made.target_agent.stop()
        made.host_agent.stop()
        assert made.host("audit", "verify", given=made.hsm_pin).returncode == 0
        assert made.target("audit", "verify").returncode == 0


@pytest.fixture
def standing(office):
    """A tunnel is there, from the test before or a new one."""
    if not look(office).live:
        office.connect()


@pytest.fixture
def since(office):
    return look(office)
