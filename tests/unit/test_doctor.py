"""What `carnet doctor` says of an IPsec daemon that is there."""

import pytest
from msgspec.structs import replace

from carnet.errors import IPsecError
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
