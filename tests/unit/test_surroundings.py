"""What an address means to this machine, read from its routes and resolver files."""

import json
from ipaddress import ip_address
from subprocess import CompletedProcess

import pytest

from carnet.errors import IPsecError
from carnet.ipsec import surroundings
from carnet.ipsec.inside import resolv_conf

ROUTES = [
    {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
    {"dst": "192.0.2.1", "dev": "eth0", "scope": "link"},
    {"dst": "192.168.77.0/24", "dev": "eth1", "protocol": "2", "scope": "link"},
    {"dst": "10.0.0.0/8", "gateway": "192.168.77.1", "dev": "eth1"},
    {"dst": "172.16.0.0/12", "nexthops": [{"gateway": "192.168.77.2"}, {"dev": "eth0"}]},
    {"dst": "172.32.0.0/16", "via": {"family": "inet6", "host": "fe80::1"}, "dev": "eth0"},
    {"dst": "0.0.0.0/1", "dev": "tun0", "scope": "link"},
    {"dst": "10.20.0.0/16", "dev": "lo", "protocol": "204"},
    {"dst": "10.21.0.0/16", "dev": "eth0", "protocol": "202"},
    {"dst": "10.22.0.0/16", "dev": "eth0", "table": "220", "protocol": "4"},
    {"dst": "100.88.7.7", "dev": "vpn0", "table": "52"},
    {"dst": "100.90.0.0/16", "gateway": "100.88.7.1", "dev": "vpn0", "table": "52"},
    {"dst": "default", "dev": "vpn0", "table": "51820"},
    {"type": "2", "dst": "100.64.0.9", "dev": "eth0", "table": "255", "protocol": "2"},
    {"type": "3", "dst": "100.64.0.255", "dev": "eth0", "table": "255", "protocol": "2"},
    {"type": "7", "dst": "100.65.0.0/16", "table": "52"},
    {},
]


@pytest.fixture
def around(monkeypatch, tmp_path):
    file = tmp_path / "resolv.conf"
    file.write_text("# x\nnameserver\nnameserver 9.9.9.9\nnameserver fe80::53%eth0\nsearch x\n")
    monkeypatch.setattr(resolv_conf, "RESOLV_CONF", tmp_path / "none")
    monkeypatch.setattr(surroundings, "RESOLVED_ASKS", file)

    def listed(*arguments):
        wanted = [each for each in ROUTES if "table" not in each or "all" in arguments]
        return CompletedProcess((), 0, json.dumps(wanted), "")

    monkeypatch.setattr(surroundings, "ip", listed)
    return surroundings.look_around(4)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("192.0.2.1", "the gateway of this machine"),
        ("192.168.77.2", "the gateway of this machine"),
        ("192.168.77.9", "in 192.168.77.0/24, a network that this machine is in"),
        ("9.9.9.9", "a name server of this machine"),
        ("127.0.0.1", "no address of one machine"),
        ("100.88.7.7", "in 100.88.7.7/32, a network that this machine is in"),
        ("100.88.7.1", "the gateway of this machine"),
        ("100.64.0.9", None),
        ("10.20.0.1", None),
        ("100.64.0.1", None),
    ],
)
def test_what_an_address_is(around, address, what):
    assert around.meaning(ip_address(address)) == what


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.168.77.9", "192.168.77.0/24"),
        ("10.20.0.1", "10.0.0.0/8"),
        ("172.16.0.1", "172.16.0.0/12"),
        ("172.32.0.1", "172.32.0.0/16"),
        ("10.22.0.1", "10.0.0.0/8"),
        ("100.90.0.1", "100.90.0.0/16"),
        ("100.64.0.1", "None"),
        ("100.64.0.255", "None"),
        ("100.65.0.1", "None"),
    ],
)
def test_where_a_route_leads(around, address, network):
    assert str(around.leads_to(ip_address(address))) == network


def test_a_program_that_lists_no_routes_is_said(monkeypatch):
    monkeypatch.setattr(surroundings, "ip", lambda *_: CompletedProcess((), 0, "{", ""))
    with pytest.raises(IPsecError, match="does not list"):
        surroundings.look_around(4)


def test_the_kernel_s_own_list_is_understood():
    for version in (4, 6):
        around = surroundings.look_around(version)
        assert all(each.version == version for each in around.on_link + around.beyond)
