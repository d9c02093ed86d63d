"""The Target on a real TLS 1.3 link: who may ask, and what the answers look like."""

import asyncio
import contextlib
import ssl
import threading

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from carnet.errors import TokenError
from carnet.link import LinkSection, client_context, server_context
from carnet.wire import cbor
from carnet.wire.control import MAX_CONTROL, EndedTunnels, TunnelAnswer, TunnelGrant, TunnelRefusal
from carnet.wire.messages import RefusalCode
from target_agent import agent, server
from target_agent.evidence import claimed_request_id
from target_agent.link_key import load_link_key
from target_agent.records import Records
from target_agent.server import Server
from tests.target.certificates import Authority
from tests.target.conftest import running


@pytest.fixture
def authority(tmp_path):
    made = Authority(tmp_path)
    made.issue("work", "work")
    return made


@pytest.fixture
def as_host(authority):
    """Return the TLS context of whoever has a certificate with these names."""

    def context(*names, issuer=authority):
        certificate, key = issuer.issue("-".join(names) or "nameless", *names)
        made = client_context(
            LinkSection(certificate=certificate, key=key, authority=authority.path)
        )
        made.check_hostname = False
        return made

    return context


@contextlib.asynccontextmanager
async def serving(config, driver, engine):
    async with running(config, driver, engine) as agent:
        application = Server(agent, load_link_key(config.link)).application()
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        link = config.link
        context = server_context(link)
        await web.TCPSite(runner, config.listen, config.port, ssl_context=context).start()
        try:
            yield agent, f"https://{config.listen}:{config.port}"
        finally:
            await runner.cleanup()


@pytest.fixture
def served(config, driver, engine, members):  # Alice is a member
    """Run a coroutine function against a serving Target: served(body) -> body(session, url)."""

    def run(body):
        async def main():
            async with (
                asyncio.timeout(30),
                serving(config, driver, engine) as (_, url),
                aiohttp.ClientSession() as session,
            ):
                return await body(session, url)

        return asyncio.run(main())

    return run


async def fetch(call):
    async with call as response:
        return response.status, await response.read(), response.headers


def post(session, url, context, body):
    return fetch(session.post(f"{url}/v1/tunnels", data=body, ssl=context))


def test_a_host_gets_a_grant_and_how_long_each_step_took(served, as_host, ask):
    office, body = as_host("office"), cbor.pack(ask())
    status, answer, headers = served(lambda session, url: post(session, url, office, body))
    assert status == 200
    assert isinstance(cbor.unpack_union(answer, TunnelAnswer, MAX_CONTROL), TunnelGrant)
    assert [part.split(";")[0] for part in headers["Server-Timing"].split(", ")] == [
        "step4",
        "step5",
    ]


def test_the_same_request_gets_the_very_same_bytes(served, as_host, ask, driver):
    office, body = as_host("office"), cbor.pack(ask())

    async def ask_often(session, url):
        return await asyncio.gather(*(post(session, url, office, body) for _ in range(5)))

    answers = served(ask_often)
    assert {(status, answer) for status, answer, _ in answers} == {(200, answers[0][1])}
    assert len(driver.installs) == 1


def test_a_host_of_another_realm_is_refused(served, as_host, ask):
    branch, body = as_host("branch"), cbor.pack(ask())
    status, answer, headers = served(lambda session, url: post(session, url, branch, body))
    refusal = cbor.unpack_union(answer, TunnelAnswer, MAX_CONTROL)
    assert (status, "Server-Timing" in headers) == (200, False)
    assert isinstance(refusal, TunnelRefusal)
    assert refusal.code is RefusalCode.EVIDENCE


@pytest.mark.parametrize("names", [(), ("office", "branch")])
def test_a_certificate_that_does_not_name_one_host_is_forbidden(served, as_host, ask, names):
    context, body = as_host(*names), cbor.pack(ask())
    status, answer, _ = served(lambda session, url: post(session, url, context, body))
    assert (status, answer) == (403, b"")


def test_a_certificate_of_another_authority_opens_nothing(served, as_host, ask, tmp_path, engine):
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    stranger = as_host("office", issuer=Authority(directory))

    async def body(session, url):
        with pytest.raises(aiohttp.ClientError):
            await post(session, url, stranger, cbor.pack(ask()))

    served(body)
    assert not Records(engine).all()


def test_no_certificate_opens_nothing(served, authority, ask, engine):
    bare = ssl.create_default_context(cafile=authority.path)
    bare.check_hostname = False

    async def body(session, url):
        with pytest.raises(aiohttp.ClientError):
            await post(session, url, bare, cbor.pack(ask()))

    served(body)
    assert not Records(engine).all()


def test_tls_1_2_is_refused(served, as_host):
    context = as_host("office")
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    async def body(session, url):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(aiohttp.ClientError):
            await post(session, url, context, b"")
        context.maximum_version = ssl.TLSVersion.TLSv1_3
        return await post(session, url, context, b"")

    assert served(body)[0] == 400


@pytest.mark.parametrize("body", [b"", b"\xa0", b"\x00" * (MAX_CONTROL + 1)])
def test_what_does_not_decode_is_a_bad_request(served, as_host, body):
    office = as_host("office")
    status, answer, _ = served(lambda session, url: post(session, url, office, body))
    assert (status, answer) == (400, b"")


def test_a_daemon_that_is_down_asks_host_to_come_again(served, as_host, ask, driver, engine):
    office, body = as_host("office"), cbor.pack(ask())

    async def while_down(session, url):
        driver.running = False
        return await post(session, url, office, body)

    status, answer, headers = served(while_down)
    assert (status, answer) == (503, b"")
    assert int(headers["Retry-After"]) > 0
    assert not Records(engine).all()


def test_a_host_revokes_its_tunnel_and_hears_of_the_end(served, as_host, ask):
    office, body = as_host("office"), cbor.pack(ask(request_id=bytes(16)))
    path = f"/v1/tunnels/{bytes(16).hex()}"

    async def revoke(session, url):
        await post(session, url, office, body)
        hearing = asyncio.create_task(fetch(session.get(f"{url}/v1/ended?after=0", ssl=office)))
        stranger, _, _ = await fetch(session.delete(url + path, ssl=as_host("branch")))
        first, _, _ = await fetch(session.delete(url + path, ssl=office))
        again, _, _ = await fetch(session.delete(url + path, ssl=office))
        return stranger, first, again, cbor.unpack((await hearing)[1], EndedTunnels)

    stranger, first, again, heard = served(revoke)
    assert (stranger, first, again) == (404, 204, 404)
    assert [(each.request_id, each.reason) for each in heard.tunnels] == [(bytes(16), "revoked")]


def test_a_host_asks_again_for_an_end_that_is_not_written_down(served, as_host, ask, monkeypatch):
    office, body = as_host("office"), cbor.pack(ask(request_id=bytes(16)))
    path = f"/v1/tunnels/{bytes(16).hex()}"

    def full(*_):
        raise OperationalError("update", None, Exception("disk full"))

    async def revoke(session, url):
        await post(session, url, office, body)
        with monkeypatch.context() as patch:
            patch.setattr(Records, "end", full)
            unwritten, _, _ = await fetch(session.delete(url + path, ssl=office))
        await fetch(session.get(f"{url}/v1/ended?after=0", ssl=office))
        again, _, _ = await fetch(session.delete(url + path, ssl=office))
        return unwritten, again

    assert served(revoke) == (503, 404)


def test_an_end_that_cannot_be_signed_is_logged_with_its_request(served, as_host, ask, monkeypatch):
    office, body = as_host("office"), cbor.pack(ask(request_id=bytes(16)))
    path = f"/v1/tunnels/{bytes(16).hex()}"

    def prove(*_):
        raise TokenError("No.")

    async def ended(session, url):
        await post(session, url, office, body)
        await fetch(session.delete(url + path, ssl=office))
        with capture_logs() as logs:
            status, _, _ = await fetch(session.get(f"{url}{path}/ending", ssl=office))
        return status, [log for log in logs if log["event"] == "ending-not-signed"]

    monkeypatch.setattr(server, "prove_ending", prove)
    status, (line,) = served(ended)
    assert (status, line["request_id"]) == (404, bytes(16).hex())


def test_what_is_just_being_ended_is_to_be_asked_for_again(
    served, as_host, ask, driver, monkeypatch
):
    """However long that takes: it is not said to live, after which nobody would."""
    office, body = as_host("office"), cbor.pack(ask(request_id=bytes(16)))
    path = f"/v1/tunnels/{bytes(16).hex()}"
    ending, go_on, down = threading.Event(), threading.Event(), driver.down

    def slowly(name):
        ending.set()
        assert go_on.wait(20)
        down(name)

    async def ended(session, url):
        async def told(context=office):
            return (await fetch(session.get(f"{url}{path}/ending", ssl=context)))[0]

        await post(session, url, office, body)
        with monkeypatch.context() as soon:
            soon.setattr(server, "ENDING_SECONDS", 0)
            soon.setattr(agent, "ENDED_SECONDS", 0)
            found = [await told()]
            soon.setattr(driver, "down", slowly)
            end = asyncio.create_task(fetch(session.delete(url + path, ssl=office)))
            assert await asyncio.to_thread(ending.wait, 20)
            found += [await told(), await told(as_host("branch"))]
        go_on.set()
        await end
        return [*found, await told()]

    assert served(ended) == [404, 503, 404, 200]


@pytest.mark.parametrize("path", ["00", "00" * 17, "zz" * 16, "AA" * 16, "%20" + "00" * 16])
def test_what_is_no_request_id_is_a_bad_request(served, as_host, path):
    async def revoke(session, url):
        return await fetch(session.delete(f"{url}/v1/tunnels/{path}", ssl=as_host("office")))

    status, body, _ = served(revoke)
    assert (status, body) == (400, b"")


@pytest.mark.parametrize("after", ["", "-1", "x", "99999999999999999999"])
def test_a_number_that_is_none_is_a_bad_request(served, as_host, after):
    office = as_host("office")
    status, _, _ = served(
        lambda session, url: fetch(session.get(f"{url}/v1/ended?after={after}", ssl=office))
    )
    assert status == 400


def test_a_request_that_the_database_fails_is_named_in_the_log_and_asked_again(
    served, as_host, ask, engine
):
    office, statement = as_host("office"), ask()
    request_id = claimed_request_id(statement).hex()

    async def body(session, url):
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE tunnels RENAME TO elsewhere")
        ending = fetch(session.get(f"{url}/v1/tunnels/{request_id}/ending", ssl=office))
        ended = fetch(session.get(f"{url}/v1/ended?after=0", ssl=office))
        return [await post(session, url, office, cbor.pack(statement)), await ending, await ended]

    with capture_logs() as logs:
        answers = served(body)
    told = [(status, "Retry-After" in headers) for status, _, headers in answers]
    assert told == [(503, True)] * 3
    failed = [each for each in logs if each["event"] in ("database-failed", "request-failed")]
    assert [each.get("request_id") for each in failed] == [request_id, request_id, None]
    assert not any("exc_info" in each for each in failed)
