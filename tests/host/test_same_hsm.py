"""Which token the Host logs in to again, where several have one serial number."""

from types import SimpleNamespace

import pytest

from carnet.errors import TokenAwayError
from carnet.token.identity import Identity
from host_agent import hsm_login
from host_agent.hsm_login import HsmLogin

ZEROS = "0000000000000000"


def token(serial, label):
    info = SimpleNamespace(
        serial=serial, label=label, identity=Identity(serial, label), initialised=True
    )
    return SimpleNamespace(info=info)


@pytest.fixture
def same(monkeypatch):
    """Return what takes back the Host's token among those that are there."""

    def take_back(*present):
        module = SimpleNamespace(present=lambda: list(present))
        monkeypatch.setattr(hsm_login, "_module", lambda *_, **__: module)
        return HsmLogin(None, "1234", lambda _: None)._same(Identity(ZEROS, "hsm"))

    return take_back


def test_it_is_the_one_of_that_label(same):
    own = token(ZEROS, "hsm")
    assert same(token(ZEROS, "another"), own) is own


def test_another_of_the_same_number_is_not_given_the_pin(same):
    with pytest.raises(TokenAwayError, match=r"hsm \(serial 0+\), is not .* another .* is; put"):
        same(token(ZEROS, "another"))


def test_one_that_is_gone_is_named_by_its_label_too(same):
    with pytest.raises(TokenAwayError, match=r"hsm \(serial 0+\), is gone"):
        same()


def test_nor_is_one_of_two_that_are_alike(same):
    with pytest.raises(TokenAwayError, match="2 tokens are there that may be the HSM token"):
        same(token(ZEROS, "hsm"), token(ZEROS, "hsm"))
