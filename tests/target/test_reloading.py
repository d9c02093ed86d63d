"""A Target reads its configuration again while it serves."""

import asyncio
import json
import ssl
from unittest.mock import Mock

import msgspec
import pytest
from aiohttp import web

from carnet.errors import IPsecError, UsageError
from carnet.link import LinkSection, server_context
from carnet.service import serving
from target_agent import unnamed
from target_agent.config import GateSection
from target_agent.firewall import Guarded
from target_agent.gate import Gate
from target_agent.link_key import load_link_key
from target_agent.reloading import Reloading
from target_agent.server import Server
from target_agent.service import DOOR
from tests.target.certificates import Authority
from tests.target.conftest import changed, running
from tests.target.test_gate import FakeFirewall


@pytest.fixture
def authority(tmp_path):
    made = Authority(tmp_path)
    made.issue("work", "work")
    return made


def renewed(config, authority, name="work"):
    """Return the configuration with another certificate, and that in DER."""
    certificate, key = authority.issue("work-again", name)
    link = LinkSection(certificate=certificate, key=key, authority=authority.path)
    shown = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    return msgspec.structs.replace(config, link=link), shown


@pytest.fixture
def reloaded(config, driver, engine, members, authority):
    """Serve, take over what `load` returns, then run body(agent, port, its answer)."""

    def run(load, body, config=config, gate=None):
        async def main():
            context = server_context(config.link)
            async with asyncio.timeout(30), running(config, driver, engine, gate) as agent:
                server = Server(agent, load_link_key(config.link))
                reloading = Reloading(config, load, agent, driver, server, context)
                runner = web.AppRunner(server.application(), access_log=None)
                async with serving(runner, DOOR, "127.0.0.1", 0, context) as port:
                    return await body(agent, port, reloading.take_over)

        return asyncio.run(main())

    return run


async def shown_at(port, authority):
    """Return the certificate that Target shows, in DER."""
    context = ssl.create_default_context(cafile=authority.path)
    context.load_cert_chain(*authority.issue("office", "office"))
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="work"
    )
    try:
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()


def test_the_next_connection_is_shown_the_new_certificate(config, authority, reloaded):
    new, certificate = renewed(config, authority)

    async def body(agent, port, take_over):
        before = await shown_at(port, authority)
        assert take_over() == []
        return before, await shown_at(port, authority)

    before, after = reloaded(lambda: new, body)
    assert after == certificate != before


def test_requests_are_answered_by_the_new_terms_and_pools_wait(config, reloaded, ask):
    new = changed(config, initiate_within=77, virtual_addresses="10.98.0.0/24")

    async def body(agent, port, take_over):
        assert take_over() == ["virtual_addresses"]
        answering = await agent.answer(ask(), "office")
        return answering.grant.tunneling_info

    info = reloaded(lambda: new, body)
    assert (info.initiate_within, info.virtual_address) == (77, "10.99.0.1")


def test_an_address_that_came_meanwhile_and_is_not_named_is_told(
    config, reloaded, driver, monkeypatch
):
    listed, log = [{"addr_info": [{"local": "192.0.2.9"}, {"local": "2001:db8::9"}]}], Mock()
    monkeypatch.setattr(unnamed, "ip", lambda *_: Mock(stdout=json.dumps(listed)))
    monkeypatch.setattr(unnamed, "log", log)
    driver.name = "strongswan"

    async def body(agent, port, take_over):
        return take_over()

    assert reloaded(lambda: changed(config, addresses=("192.0.2.9",)), body) == []
    (told,) = log.warning.call_args_list
    assert told.kwargs["addresses"] == ("2001:db8::9",)


def test_a_certificate_that_cannot_be_used_changes_nothing(config, authority, reloaded):
    new, _ = renewed(changed(config, initiate_within=77), authority)
    new.link.certificate.write_text("nothing")

    async def body(agent, port, take_over):
        before = await shown_at(port, authority)
        with pytest.raises(UsageError):
            take_over()
        assert agent._parts.config == config
        return before == await shown_at(port, authority)

    assert reloaded(lambda: new, body)


def test_the_certificate_of_another_agent_changes_nothing(config, authority, reloaded):
    new, _ = renewed(changed(config, initiate_within=77), authority, "gateway")

    async def body(agent, port, take_over):
        before = await shown_at(port, authority)
        with pytest.raises(UsageError, match="of gateway, and `name` is work"):
            take_over()
        assert agent._parts.config == config
        return before == await shown_at(port, authority)

    assert reloaded(lambda: new, body)


def test_another_authority_is_not_trusted_before_the_next_start(config, authority, reloaded):
    new, _ = renewed(config, authority)
    other = config.link.authority.parent / "elsewhere"
    other.mkdir()

    async def body(agent, port, take_over):
        config.link.authority.write_bytes(Authority(other).path.read_bytes())
        return take_over()

    assert reloaded(lambda: new, body) == ["link.authority"]


@pytest.fixture
def gated(config):
    """A configuration with a gate, the same with another network, and what the gate is made of."""
    old = msgspec.structs.replace(config, gate=GateSection(outside=("eth0",)))
    firewall = FakeFirewall()
    gate = Gate(firewall, Guarded(("eth0",), old.tunnels.networks, ()))
    return old, changed(old, networks=("10.20.0.0/16", "10.30.0.0/16")), firewall, gate


def test_networks_that_were_added_are_guarded_before_the_configuration_counts(gated, reloaded):
    old, new, firewall, gate = gated

    async def body(agent, port, take_over):
        gate.open("hers", "203.0.113.7", ("10.20.0.0/16",), 2**40)
        assert take_over() == []
        return agent._parts.config

    assert reloaded(lambda: new, body, old, gate) == new
    assert firewall.guarded.networks == new.tunnels.networks
    assert [each.network for each in firewall.open] == ["10.20.0.0/16"], "who has a session stays"


def test_networks_that_cannot_be_guarded_are_not_taken_over(gated, authority, reloaded):
    old, new, firewall, gate = gated
    new, _ = renewed(new, authority)

    async def body(agent, port, take_over):
        before = await shown_at(port, authority)
        firewall.refusals = 1
        with pytest.raises(IPsecError):
            take_over()
        assert agent._parts.config == old
        assert before == await shown_at(port, authority)
        gate.restore()

    reloaded(lambda: new, body, old, gate)
    assert firewall.guarded.networks == old.tunnels.networks
