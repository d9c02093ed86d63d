"""What `carnet doctor` says of an IPsec daemon that is there, and of what hangs on another part."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from carnet.errors import IPsecError, TokenError, UnreachableError
from carnet.ipsec.driver import Capabilities
from carnet.ipsec.drivers import DriverName, Sighting
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from token_client import doctor
from token_client.config import ClientConfig

PLAIN = ClientConfig()
ABLE = Capabilities(
    driver="strongswan",
    version="5.9.8",
    ike_versions=(2,),
    objectives=(Objective.AH, Objective.ESP),
    modes=(Mode.TUNNEL,),
    ppk=True,
)


@pytest.fixture
def look(monkeypatch):
    """Return what looks at a machine whose one daemon was found to be like this."""

    def at(found, config=PLAIN):
        sighting = Sighting(DriverName.STRONGSWAN, found)
        monkeypatch.setattr(doctor, "look_around", lambda _: iter([sighting]))
        return doctor._Examination(config, None)._look_at_ipsec()

    return at


def test_what_it_carries_is_said(look):
    assert look(ABLE) == "strongswan 5.9.8 carries ah, esp"


def test_one_that_carries_no_esp_would_not_do_for_a_connection(look):
    with pytest.raises(IPsecError, match="runs but cannot carry ESP; load the kernel's ESP"):
        look(replace(ABLE, objectives=(Objective.AH,)))


@pytest.mark.parametrize("minimum", ["ah", "ah+esp"])
def test_one_that_carries_less_than_the_minimum_would_not_do_either(look, minimum):
    config = ClientConfig(minimum=(minimum,))
    with pytest.raises(IPsecError, match="cannot carry ah\\+esp, only ah, esp, and `minimum`"):
        look(ABLE, config)
    objectives = (*ABLE.objectives, Objective.AH_ESP)
    assert "ah+esp" in look(replace(ABLE, objectives=objectives), config)


@pytest.fixture
def examination():
    return doctor._Examination(PLAIN, None)


def test_readers_are_not_blamed_where_the_module_is_missing(examination, monkeypatch):
    monkeypatch.setattr(doctor, "look_at_readers", lambda: None)
    with pytest.raises(TokenError, match="known with the module only; see to that first"):
        examination._look_at_readers()
    examination._module = SimpleNamespace(slot_names=list)
    with pytest.raises(TokenError, match="The smart-card service does not run"):
        examination._look_at_readers()


def test_a_token_whose_cover_is_refused_is_not_called_missing(examination):
    with pytest.raises(UnreachableError, match="plug in yours"):
        examination._look_at_host()
    examination._token = object()
    with pytest.raises(UnreachableError, match="is on the cover of the token"):
        examination._look_at_host()
