"""The HSM goes away and comes back: nothing is lost, nothing is done that was not.

Real SoftHSM2. It is taken away by its files, by C_Finalize, C_CloseAllSessions and
C_Logout behind the Host's back, and by a lock on its files that makes it hang.
"""

import asyncio
import ctypes
import os
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from carnet.errors import KeyNotSeenError, PinRefusedError, TokenAwayError, TokenError
from carnet.token.data import write_data
from carnet.token.module import Module, Token
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import open_session
from carnet.token.transport import host_transport_key
from carnet.wire.envelope import parse_envelope, seal_request
from carnet.wire.suites import P256
from host_agent import fitness, hsm_login
from host_agent import hsm_service as service
from host_agent.config import TokenSection
from host_agent.doctor import _Examination
from host_agent.hsm import open_hsm
from host_agent.hsm_login import HsmLogin
from host_agent.hsm_service import HsmAwayError, HsmSilentError
from host_agent.hsm_states import State
from host_agent.keydb import KeyDatabase
from host_agent.local import hsm_session
from host_agent.officer_interface import OfficerInterface, _ServiceToken
from softhsm.places import directories_of
from tests.host.batches import Officer, host_config, write
from tests.host.booklets import Booklet
from tests.host.conftest import new_pair
from tests.host.elsewhere import (
    ANOTHER_LOGIN,
    ANOTHER_PAIR,
    NEW_PIN,
    OTHER_TOKEN,
    SERVING,
    elsewhere,
    locked,
)
from tests.token.helpers import PIN, SO_PIN, Pairing
from tests.unit.examples import make_request

PATIENCE = 20
OTHER_PIN = "another-pin-4712"
HOST = TokenSection(token="host")

# As they stand in SoftHSM2's files: an attribute's type; and CKA_CLASS with its value.
CKA_EC_PARAMS = bytes.fromhex("0000000000000180")
CKO_PRIVATE_KEY = bytes.fromhex("000000000000000000000000000000020000000000000003")


@dataclass
class Office:
    """A Host's token with four pairs, and a request under each."""

    module: Module
    tokens: Path
    traveller: str
    serial: str
    requests: list[Any]

    @property
    def away(self):
        return self.tokens.with_name("away")

    def take_away(self):
        self.tokens.rename(self.away)
        self.tokens.mkdir()

    def put_back(self):
        for token in self.tokens.iterdir():
            token.rename(self.tokens.with_name(f"not-{token.name}"))
        self.tokens.rmdir()
        self.away.rename(self.tokens)

    def another_pair(self):
        """Have another process mint one pair more and import it."""
        elsewhere(ANOTHER_PAIR, self.traveller, self.serial, PIN)

    def request_under_it(self):
        """Return a request under the pair that came last."""
        with open_session(self.module.choose(self.traveller), PIN, writable=False) as carried:
            booklet = OneTimeKeys(carried)
            return sealed(booklet.private_key(booklet.pairs()[-1].key_id))

    def held(self):
        """What is on the token, asked of it when nobody else is logged in."""
        with open_session(self.module.choose(self.serial), PIN, writable=False) as session:
            return [pair.key_id for pair in OneTimeKeys(session).pairs()]


@pytest.fixture
def office(directory, module, make_token):
    traveller, serial = make_token("traveller").info.serial, make_token("host").info.serial
    with (
        open_session(module.choose(traveller), PIN, writable=True) as carried,
        open_session(module.choose(serial), PIN, writable=True) as hsm,
    ):
        pairing = Pairing(carried, hsm)
        key_ids = [pairing.share(number) for number in range(4)]
        booklet = OneTimeKeys(carried)
        requests = [sealed(booklet.private_key(key_id)) for key_id in key_ids]
    return Office(module, directory / "softhsm" / "tokens", traveller, serial, requests)


def sealed(key):
    """Seal a request under a pair of the traveller's token; return what Host opens it with."""
    data = seal_request(make_request(), key.pair.public_key, P256, key)
    return parse_envelope(data), key.pair.public_key


@pytest.fixture(autouse=True)
def no_thread_stays():
    """One that hung goes on when it can, and would meet the next test's tokens."""
    yield
    for thread in threading.enumerate():
        if thread.name == "hsm":
            thread.join(PATIENCE)
            assert not thread.is_alive()


@asynccontextmanager
async def at_service():
    """An HSM in service, and the event that it came back."""
    async with open_hsm(HOST, PIN) as hsm:
        assert hsm.state is State.IN_SERVICE
        back = asyncio.Event()
        hsm.on_return = back.set
        yield hsm, back


async def until(event):
    await asyncio.wait_for(event.wait(), PATIENCE)


async def said(logs, event, word=""):
    """Wait until the log has such a line; return it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for line in logs:
                if line["event"] == event and word in line.get("reason", ""):
                    return line
            await asyncio.sleep(0.01)


def finalize(office):
    office.module.library._functions.C_Finalize(None)


def close_all_sessions(office):
    close = office.module.library._module.C_CloseAllSessions
    close.argtypes = [ctypes.c_ulong]
    assert close(office.module.choose(office.serial).slot_id) == 0


def log_out(office):
    """Whichever session the Host has: handles are small numbers."""
    function = office.module.library._module.C_Logout
    function.argtypes = [ctypes.c_ulong]
    assert 0 in [function(handle) for handle in range(1, 9)]


BEHIND_ITS_BACK = [finalize, close_all_sessions, log_out]


async def works(hsm, office, number):
    signed = await hsm.open_request(*office.requests[number])
    assert signed.request == make_request()


@pytest.mark.parametrize("lose", BEHIND_ITS_BACK)
def test_what_is_done_behind_its_back_costs_one_answer_and_is_mended(office, lose):
    async def main():
        async with at_service() as (hsm, back):
            await works(hsm, office, 0)
            lose(office)
            with pytest.raises(TokenError):
                await works(hsm, office, 1)
            assert hsm.state is State.AWAY
            await until(back)
            await works(hsm, office, 1)

    asyncio.run(main())
    assert len(office.held()) == 4


def test_a_token_that_is_taken_away_is_looked_for_until_it_is_back(office):
    async def main():
        async with at_service() as (hsm, back):
            office.take_away()
            with pytest.raises(TokenError), capture_logs() as logs:
                await works(hsm, office, 0)
            with capture_logs() as logs:
                await said(logs, "hsm-away", "is gone; insert it again")
            with pytest.raises(HsmAwayError):
                await works(hsm, office, 0)
            assert not back.is_set()
            office.put_back()
            await until(back)
            await works(hsm, office, 0)

    asyncio.run(main())


def test_a_token_whose_file_was_emptied_meanwhile_comes_back(office):
    """By another program, which was killed as SoftHSM2 wrote it at a login."""
    (place,) = directories_of(office.serial)

    async def main():
        async with at_service() as (hsm, back):
            close_all_sessions(office)
            os.truncate(place / "token.object", 0)
            with pytest.raises(TokenError):
                await works(hsm, office, 0)
            await until(back)
            await works(hsm, office, 0)

    asyncio.run(main())


def test_an_hsm_that_lets_keys_out_is_named_at_the_first_login_alone(office, monkeypatch):
    monkeypatch.setattr(fitness, "ways_out", lambda *_: ["reading it"])

    async def run():
        with capture_logs() as logs:
            async with open_hsm(HOST, PIN) as hsm:
                await hsm.renew()
        (unfit,) = [each for each in logs if each["event"] == "hsm-unfit"]
        assert "lets private keys out that it was told to keep (reading it)" in unfit["reason"]

    asyncio.run(run())


def test_an_idle_hsm_that_goes_away_is_noticed(office, monkeypatch):
    monkeypatch.setattr(service, "WATCH_SECONDS", 0.05)

    async def main():
        async with at_service() as (hsm, back):
            with capture_logs() as logs:
                office.take_away()
                await said(logs, "hsm-lost")
            office.put_back()
            await until(back)
            await works(hsm, office, 0)

    asyncio.run(main())


@pytest.mark.parametrize("lose", [*BEHIND_ITS_BACK, Office.take_away])
def test_a_key_is_not_said_to_be_destroyed_while_nobody_can_see_it(office, lose):
    """SoftHSM2 calls its handle invalid, as of a key that is gone."""
    key_id = office.requests[0][0].key_id

    async def main():
        async with at_service() as (hsm, back):
            lose(office)
            with pytest.raises(TokenError):
                await hsm.destroy(key_id)
            if office.away.exists():
                office.put_back()
            await until(back)
            await hsm.destroy(key_id)
            await hsm.destroy(key_id)

    asyncio.run(main())
    assert office.held() == [envelope.key_id for envelope, _ in office.requests[1:]]


async def unseen(hsm, office):
    """Return a request under a pair that another process stored just before the Host wrote.

    SoftHSM2 does not show that pair then, however often it is searched.
    """

    def write(session):
        write_data(session, "a mark", b"2", private=True, stands=lambda _: office.another_pair())

    await hsm.store(partial(write_data, label="a mark", value=b"1", private=True))
    await hsm.store(write)
    return office.request_under_it()


def test_a_pair_stored_just_before_the_host_wrote_is_seen_in_the_next_login(office, monkeypatch):
    async def main():
        async with at_service() as (hsm, _):
            office.requests.append(await unseen(hsm, office))
            with pytest.raises(KeyNotSeenError):  # no login after the other for what is not there
                await works(hsm, office, -1)
            monkeypatch.setattr(hsm._login, "_fresh_until", 0)
            await works(hsm, office, -1)

    asyncio.run(main())


@pytest.fixture
def never_fresh(monkeypatch):
    """Whatever is not seen renews the login, however new that is."""
    monkeypatch.setattr(hsm_login, "FRESH_SECONDS", 0)
    monkeypatch.setattr(hsm_login, "FRESH_SHARE", 0)


def test_an_import_puts_off_nobody_whose_key_another_process_stored(office, tmp_path, monkeypatch):
    """Though it keeps its session, and stores in it."""
    served = []

    def importing(hsm, spool, database):
        loop, record = asyncio.get_running_loop(), database.record_copies

        def record_and_serve(*arguments):
            record(*arguments)
            request = works(hsm, office, -1)
            asyncio.run_coroutine_threadsafe(request, loop).result(PATIENCE)
            served.append(arguments)

        monkeypatch.setattr(database, "record_copies", record_and_serve)
        interface = OfficerInterface(host_config(tmp_path), database, hsm, asyncio.Event().set)
        return asyncio.to_thread(interface._import, spool, _ServiceToken(hsm, loop), lambda: None)

    async def main():
        async with at_service() as (hsm, _):
            batch = write(
                tmp_path / "batch",
                Booklet(await hsm.store(host_transport_key), 2).batch,
                Officer(tmp_path),
            )
            office.requests.append(await unseen(hsm, office))
            with (
                KeyDatabase.opened(tmp_path / "keys.sqlite") as database,
                batch.open("rb", buffering=0) as file,
            ):
                database.add_pairs([new_pair(SimpleNamespace(public_key=office.requests[-1][1]))])
                _, new = await importing(hsm, file, database)
                assert new == 2

    asyncio.run(main())
    assert served


UNKNOWN = bytes(16)


@pytest.mark.usefixtures("never_fresh")
def test_what_is_not_seen_leaves_an_import_its_session(office):
    async def main():
        async with at_service() as (hsm, _):
            with hsm.kept_open():
                session = await hsm.do(lambda session: session)
                await hsm.destroy(UNKNOWN)
                assert await hsm.do(lambda session: session) is session
            await hsm.destroy(UNKNOWN)
            assert await hsm.do(lambda session: session) is not session

    asyncio.run(main())


def test_what_may_be_hidden_is_not_said_to_be_destroyed(office, monkeypatch):
    """In a new login, or under an import: it is owed until it can be seen, and that is told."""
    told = []

    async def main():
        async with at_service() as (hsm, _):
            hsm.on_unseen = told.append
            request, _ = await unseen(hsm, office)
            with pytest.raises(KeyNotSeenError):
                await hsm.destroy(request.key_id)
            monkeypatch.setattr(hsm._login, "_fresh_until", 0)
            with hsm.kept_open(), pytest.raises(KeyNotSeenError):
                await hsm.destroy(request.key_id)
            await hsm.destroy(request.key_id)

    asyncio.run(main())
    first, under_an_import = told
    assert first > under_an_import == 0
    assert office.held() == [envelope.key_id for envelope, _ in office.requests]


def test_a_renewal_that_is_given_up_and_then_refused_tries_the_pin_once(office, monkeypatch):
    tries, go_on = [], threading.Event()

    def slow(*arguments, **options):
        tries.append(arguments)
        assert go_on.wait(PATIENCE)
        return open_session(*arguments, **options)

    async def main():
        async with at_service() as (hsm, _):
            elsewhere(NEW_PIN, SO_PIN, OTHER_PIN)
            monkeypatch.setattr(hsm_login, "open_session", slow)
            monkeypatch.setattr(hsm._login, "_fresh_until", 0)
            monkeypatch.setattr(hsm._login, "seconds", 0)
            monkeypatch.setattr("host_agent.hsm.OPERATION_SECONDS", 0.1)
            with pytest.raises(HsmSilentError):
                await hsm.destroy(UNKNOWN)
            go_on.set()
            with capture_logs() as logs:
                await said(logs, "hsm-shut-out")

    asyncio.run(main())
    assert len(tries) == 1


@pytest.mark.usefixtures("never_fresh")
def test_a_renewal_tries_a_pin_that_is_no_longer_right_once(office):
    async def main():
        async with at_service() as (hsm, _):
            elsewhere(NEW_PIN, SO_PIN, OTHER_PIN)
            with pytest.raises(PinRefusedError):
                await hsm.destroy(UNKNOWN)
            assert hsm.state is State.SHUT_OUT
            await asyncio.wait_for(hsm.supervise(), PATIENCE)

    asyncio.run(main())


@pytest.mark.usefixtures("never_fresh")
def test_a_pair_stored_just_before_the_host_wrote_is_destroyed(office):
    async def main():
        async with at_service() as (hsm, _):
            request, _ = await unseen(hsm, office)
            await hsm.destroy(request.key_id)

    asyncio.run(main())
    assert office.held() == [envelope.key_id for envelope, _ in office.requests]


@pytest.mark.parametrize("labelled", ["like ours", "by our serial number"])
def test_another_token_in_its_place_is_refused_and_never_given_the_pin(office, labelled):
    async def main():
        async with at_service() as (hsm, back):
            office.take_away()
            label = "host" if labelled == "like ours" else office.serial
            elsewhere(OTHER_TOKEN, label, SO_PIN, OTHER_PIN)
            with pytest.raises(TokenError):
                await works(hsm, office, 0)
            with capture_logs() as logs:
                line = await said(logs, "hsm-away", "put the right one back")
            assert office.serial in line["reason"]
            assert not back.is_set()
            (other,) = [t for t in office.module.tokens() if t.initialised]
            assert not other.pin_count_low
            office.put_back()
            await until(back)
            await works(hsm, office, 0)

    asyncio.run(main())


def test_a_pin_that_is_no_longer_right_is_tried_once_and_said_once(office):
    async def main():
        async with at_service() as (hsm, _):
            office.take_away()
            with pytest.raises(TokenError):
                await works(hsm, office, 0)
            office.put_back()
            elsewhere(NEW_PIN, SO_PIN, OTHER_PIN)
            with capture_logs() as logs:
                line = await said(logs, "hsm-shut-out")
            assert line["log_level"] == "critical"
            assert "PIN is wrong" in line["reason"]
            assert PIN not in str(logs)
            await asyncio.wait_for(hsm.supervise(), PATIENCE)  # ends at once: nothing is tried
            with pytest.raises(HsmAwayError):
                await works(hsm, office, 0)

    asyncio.run(main())


class Unjudging:
    """Logins at a token that goes away as it is given the PIN."""

    def __init__(self, monkeypatch):
        self.tries = 0
        self.kind = TokenAwayError
        self.patch = partial(monkeypatch.setattr, hsm_login, "open_session")

    def __call__(self, *_, **__):
        self.tries += 1
        gone = self.kind("The token is gone.")
        gone.pin_given = True
        raise gone


@pytest.fixture
def unjudging(monkeypatch):
    return Unjudging(monkeypatch)


@pytest.fixture
def login(office):
    """Logins to the HSM, the last of which is closed."""
    login = HsmLogin(HOST, PIN, lambda _: None)
    yield login
    login.log_out()
    login._turn.close()  # which one that is refused for ever keeps to its end


@pytest.fixture
def locks(monkeypatch):
    """Take the token for one that may lock, as SoftHSM2's do not."""
    monkeypatch.setattr(hsm_login, "may_lock", lambda _: True)


@pytest.mark.usefixtures("locks")
def test_a_pin_that_was_never_taken_is_tried_twice_where_it_is_not_judged(login, unjudging):
    unjudging.patch(unjudging)
    for said in ("gone", "asked again"):
        with pytest.raises(TokenAwayError, match=said):
            login.log_in()
    assert unjudging.tries == 1
    for _ in range(2):
        login._not_before = 0
        with pytest.raises(PinRefusedError, match="did not say whether it is right"):
            login.log_in()
    assert unjudging.tries == 2


@pytest.mark.usefixtures("locks")
def test_another_process_gives_no_pin_while_one_waits_for_its_verdict(office, login, unjudging):
    unjudging.patch(unjudging)
    with pytest.raises(TokenAwayError):
        login.log_in()
    assert elsewhere(ANOTHER_LOGIN, PIN).startswith("Another program is giving token host")
    unjudging.patch(open_session)
    login._not_before = 0
    login.log_in()
    assert elsewhere(ANOTHER_LOGIN, PIN) == "logged in\n"


def test_what_an_operator_does_before_the_last_try_is_said(office, login, monkeypatch):
    real = Token.info.fget
    monkeypatch.setattr(Token, "info", property(lambda it: replace(real(it), pin_final_try=True)))
    config = SimpleNamespace(token=HOST)
    look = _Examination(config)
    look._token = choose(office)
    for refused in login.log_in, look._look_at_pin, lambda: hsm_session(config, PIN).__enter__():
        with pytest.raises(PinRefusedError, match="`carnet-provision list --allow-final-try` with"):
            refused()


@pytest.mark.parametrize("sure", ["taken before", "never locks"])
def test_a_right_pin_is_tried_until_it_is_judged_and_ever_more_seldom(
    login, unjudging, sure, request
):
    if sure == "taken before":
        request.getfixturevalue("locks")
        login.log_in()
    for _ in range(2):
        unjudging.patch(unjudging)
        unjudging.tries, pauses = 0, []
        for _ in range(6):
            login._not_before = 0
            began = hsm_login.time.monotonic()
            for said in ("gone", "asked again"):
                with pytest.raises(TokenAwayError, match=said):
                    login.log_in()
            pauses.append((login._not_before - began) // 60)
        assert (unjudging.tries, pauses) == (6, [1, 2, 4, 8, 10, 10])
        login._not_before = 0
        unjudging.patch(open_session)
        login.log_in()


def test_a_host_outlives_an_hsm_that_goes_as_it_is_first_given_the_pin(
    office, unjudging, monkeypatch
):
    monkeypatch.setattr(hsm_login, "UNJUDGED_SECONDS", 0)
    unjudging.kind = TokenError  # as CKR_GENERAL_ERROR
    unjudging.patch(unjudging)

    async def main():
        async with open_hsm(HOST, PIN) as hsm:
            assert hsm.state is State.AWAY
            back = asyncio.Event()
            hsm.on_return = back.set
            unjudging.patch(open_session)
            await until(back)
            await works(hsm, office, 0)

    asyncio.run(main())


@pytest.mark.usefixtures("locks")
def test_a_pin_that_cost_a_try_unsaid_is_not_tried_again(office, login, unjudging):
    login.log_in()
    unjudging.patch(unjudging)
    with pytest.raises(TokenAwayError):
        login.log_in()
    login._not_before = 0
    with pytest.raises(PinRefusedError), open_session(choose(office), OTHER_PIN, writable=False):
        pass
    unjudging.patch(open_session)
    with pytest.raises(PinRefusedError, match="did not say whether it is right"):
        login.log_in()


def choose(office):
    return office.module.choose(office.serial)


def test_an_hsm_that_hangs_holds_up_nobody(office, monkeypatch):
    async def main():
        async with at_service() as (hsm, back):
            # As it hangs and no longer: what works may take its time on a busy machine.
            with locked(office.tokens), monkeypatch.context() as patch:
                patch.setattr(service, "OPERATION_SECONDS", 0.5)
                at_once = [works(hsm, office, number) for number in range(4)]
                failed = await asyncio.gather(*at_once, return_exceptions=True)
                assert [type(error) for error in failed] == [HsmSilentError, *[HsmAwayError] * 3]
                assert hsm.state is State.AWAY
                assert not back.is_set()
            await until(back)
            await works(hsm, office, 0)

    asyncio.run(main())


def test_what_is_stored_may_wait_for_a_busy_disk(office, monkeypatch):
    async def main():
        async with at_service() as (hsm, _):
            is_synced = threading.Event()
            with monkeypatch.context() as patch:
                patch.setattr(service, "OPERATION_SECONDS", 0.05)
                asyncio.get_running_loop().call_later(0.2, is_synced.set)
                assert await hsm.store(lambda _: is_synced.wait(PATIENCE))
            assert hsm.state is State.IN_SERVICE

    asyncio.run(main())


def test_a_process_ends_while_its_hsm_hangs(office):
    command = [sys.executable, "-c", SERVING]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as serving:
        serving.stdin.write(f"{PIN}\n")
        serving.stdin.flush()
        assert serving.stdout.readline() == "in service\n"
        with locked(office.tokens):
            serving.stdin.write("\n")
            serving.stdin.close()
            assert serving.wait(PATIENCE) == 0


@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_one_key_that_fails_logs_nobody_out(office, damage):
    async def main():
        async with at_service() as (hsm, _):
            tried = await asyncio.gather(
                *(works(hsm, office, number) for number in range(4)), return_exceptions=True
            )
            assert hsm.state is State.IN_SERVICE
            assert sum(isinstance(result, TokenError) for result in tried) == 1
            assert tried.count(None) == 3

    path = a_private_key_of_a_pair(office)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(CKA_EC_PARAMS)] if damage == "cut short" else b"")
    asyncio.run(main())


def a_private_key_of_a_pair(office):
    """Return a file without which one pair less is listed."""
    (directory,) = office.tokens.glob(f"*{office.serial[4:]}")
    for path in sorted(directory.glob("*.object")):
        whole = path.read_bytes()
        if CKO_PRIVATE_KEY in whole and CKA_EC_PARAMS in whole:
            path.write_bytes(b"")
            held = len(office.held())
            path.write_bytes(whole)
            if held == 3:
                return path
    raise AssertionError("no pair's private key was found")


def test_a_host_without_hsm_starts_and_waits_for_it(office):
    async def main():
        with capture_logs() as logs:
            async with open_hsm(HOST, PIN) as hsm:
                back = asyncio.Event()
                hsm.on_return = back.set
                assert hsm.state is State.AWAY
                assert logs[0]["event"] == "hsm-away"
                assert "No token was found" in logs[0]["reason"]
                with pytest.raises(HsmAwayError):
                    await works(hsm, office, 0)
                office.put_back()
                await until(back)
                await works(hsm, office, 0)

    office.take_away()
    asyncio.run(main())


def test_a_host_with_a_wrong_pin_does_not_start(office):
    async def main():
        async with open_hsm(HOST, OTHER_PIN):
            pass

    with pytest.raises(PinRefusedError, match="PIN is wrong"):
        asyncio.run(main())


def test_a_host_that_cannot_tell_its_token_does_not_start(office):
    async def main():
        async with open_hsm(TokenSection(), PIN):
            pass

    with pytest.raises(TokenError, match="There are 2 tokens"):
        asyncio.run(main())
