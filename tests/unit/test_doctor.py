"""What `carnet doctor` says of an IPsec daemon that is there, and of what hangs on another part."""

from types import SimpleNamespace

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from carnet.errors import IPsecError, TokenError, UnreachableError
from carnet.ipsec import block, inside
from carnet.ipsec.driver import Capabilities
from carnet.ipsec.drivers import DriverName, Sighting
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from token_client import config as configuration
from token_client import doctor
from token_client.cli import cli
from token_client.config import ClientConfig
from token_client.host import HostSighting

PLAIN = ClientConfig()
ABLE = Capabilities(
    driver="strongswan",
    version="5.9.8",
    ike_versions=(2,),
    objectives=(Objective.AH, Objective.ESP),
    modes=(Mode.TUNNEL,),
    ppk=True,
)


class PacketFilter:
    """One that takes a block, or that of a machine where nothing does."""

    def __init__(self, *, takes=True):
        self.works = lambda: takes


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Leave the process what sets blocks and name servers as it was."""
    monkeypatch.setattr(block, "_here", msgspec.structs.replace(block._here))
    monkeypatch.setattr(inside, "_inside", inside.inside())


@pytest.fixture
def look(monkeypatch):
    """Return what looks at a machine whose one daemon was found to be like this."""

    block.use(PacketFilter())

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


def test_where_nothing_could_hold_packets_back_a_connection_would_be_refused(look):
    block.use(PacketFilter(takes=False))
    with pytest.raises(IPsecError, match=r"keep packets from leaving in clear.*`--no-block`"):
        look(ABLE)
    assert look(ABLE, replace(PLAIN, block=False)) == "strongswan 5.9.8 carries ah, esp"


def test_the_packet_filter_of_the_helper_is_the_one_that_is_asked(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(doctor, "examine", lambda *_: asked.extend(block._here.all) or [])
    config = ClientConfig(helper=tmp_path / "helper.sock")
    monkeypatch.setattr(configuration, "load", lambda **_: config)
    assert CliRunner().invoke(cli, ["doctor"]).exit_code == 0
    assert [each.name for each in asked] == ["carnet-helper"]


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


def test_a_network_that_wants_a_login_is_no_host(monkeypatch):
    url = "http://198.51.100.7:8470"
    portal = HostSighting(url, failure="HTTP 302", wants_login=True)
    monkeypatch.setattr(doctor, "look_at_host", lambda *_: portal)
    with pytest.raises(UnreachableError, match=r"wants a login first .*HTTP 302.*; log in to it"):
        doctor._Examination(ClientConfig(hosts=(url,)), None)._look_at_host()


def test_a_token_whose_cover_is_refused_is_not_called_missing(examination):
    with pytest.raises(UnreachableError, match="plug in yours"):
        examination._look_at_host()
    examination._token = object()
    with pytest.raises(UnreachableError, match="is on the cover of the token"):
        examination._look_at_host()
