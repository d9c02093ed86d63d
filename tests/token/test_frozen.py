"""A pcscd that stands still, by SIGSTOP: with OpenSC and vpcd's readers, nobody waits for ever."""

import asyncio
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from carnet.token import frozen
from carnet.token.module import Module
from host_agent import hsm_service
from host_agent.config import TokenSection
from host_agent.hsm import open_hsm
from host_agent.hsm_service import HsmSilentError
from host_agent.hsm_states import State
from lab.fake_piv import DEFAULT_PIN
from lab.readers import OPENSC, Card, CardReaders
from lab.waiting import wait_until
from tests.host.real_host import http, read_all, status_of
from tests.provisioning.test_station import CONFIGURATION
from tests.target.certificates import Authority
from tests.target.conftest import free_port
from tests.token.impatient import (
    COMMAND,
    HOST_COMMAND,
    KEY_IN_USE,
    LOOK_ONCE,
    SERVED,
    SERVING,
    WATCH,
    asking,
    ended,
)
from token_client import watch


@pytest.fixture
def frozen_pcscd(pcscd: CardReaders) -> Iterator[CardReaders]:
    pcscd.freeze()
    yield pcscd
    pcscd.thaw()


def test_who_watches_over_a_wait_is_gone_when_it_is_over() -> None:
    for _ in range(20):
        with frozen.unless_frozen():
            pass
        assert "frozen" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("command", ["connect", "connect --wait", "tokens"])
def test_a_pcscd_that_stands_still_keeps_nobody_waiting(
    frozen_pcscd: CardReaders, tmp_path: Path, command: str
) -> None:
    done = ended(asking(frozen_pcscd, tmp_path, COMMAND, *command.split()))
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"carnet: {frozen.FROZEN}\n"


def test_a_command_of_the_host_ends_too(frozen_pcscd: CardReaders, tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_text(CONFIGURATION.replace('token = "hsm"', f'module = "{OPENSC}"'))
    named = ("--config", str(path), "transport-key")
    done = ended(asking(frozen_pcscd, tmp_path, HOST_COMMAND, *named))
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"carnet-host: {frozen.FROZEN}\n"


def test_the_doctor_names_a_pcscd_that_stands_still(
    frozen_pcscd: CardReaders, tmp_path: Path
) -> None:
    done = ended(asking(frozen_pcscd, tmp_path, COMMAND, "doctor", "--json"))
    assert (done.returncode, done.stderr) == (4, "")
    last = json.loads(done.stdout)[-1]
    assert (last["good"], last["sentence"]) == (False, frozen.FROZEN)


def test_the_host_s_doctor_names_it_too(frozen_pcscd: CardReaders, tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_text(CONFIGURATION.replace('token = "hsm"', f'module = "{OPENSC}"'))
    named = ("--config", str(path), "doctor", "--json")
    done = ended(asking(frozen_pcscd, tmp_path, HOST_COMMAND, *named))
    assert (done.returncode, done.stderr) == (4, "")
    *before, last = json.loads(done.stdout)
    assert [each["part"] for each in before] == ["configuration", "database"]
    assert (last["part"], last["good"], last["sentence"]) == ("token", False, frozen.FROZEN)


def logged(log: Path, event: str, words: str = "") -> bool:
    """Tell whether a service has written that event, and these words as its reason."""
    whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    said = [json.loads(line) for line in whole]
    return any(each["event"] == event and words in each.get("reason", "") for each in said)


def answer(port: int) -> int:
    """Return what a stranger gets."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(http(b"nothing"))
        return int(status_of(read_all(connection)))


def test_a_host_serves_while_pcscd_stands_still_and_goes_on_with_it(
    pcscd: CardReaders, tmp_path: Path
) -> None:
    port = free_port()
    Authority(tmp_path).issue("host", "office")
    path = tmp_path / "host.toml"
    path.write_text(SERVED.format(port=port, module=OPENSC))
    pcscd.freeze()
    argv = asking(pcscd, tmp_path, SERVING, "--config", str(path), "serve")
    log = tmp_path / "log"
    with log.open("wb") as stderr, subprocess.Popen(argv, stderr=stderr) as serving:
        try:
            wait_until(lambda: logged(log, "ready"), "it to serve", 60)
            assert logged(log, "hsm-away", "has not answered")
            assert answer(port) == 403
            pcscd.thaw()
            wait_until(lambda: logged(log, "hsm-away", "No token was found"), "a look", 60)
            pcscd.freeze()
            serving.terminate()
            assert serving.wait(60) == 0
        finally:
            pcscd.thaw()
            serving.kill()


def test_a_card_in_service_is_lost_with_pcscd_and_comes_back_with_it(
    opensc: Module, pcscd: CardReaders, cards: tuple[Card, Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(hsm: hsm_service.HsmService) -> bool:
        """OpenSC asks the reader but once a second."""
        await asyncio.sleep(0.1)
        try:
            await hsm.check()
        except HsmSilentError:
            return True
        return False

    async def main() -> None:
        back = asyncio.Event()
        async with open_hsm(TokenSection(module=OPENSC), DEFAULT_PIN) as hsm:
            await hsm.check()
            hsm.on_return = back.set
            pcscd.freeze()
            with monkeypatch.context() as impatient:
                impatient.setattr(hsm_service, "OPERATION_SECONDS", 0.5)
                while not await silent(hsm):
                    pass
            assert (hsm.state, back.is_set()) == (State.AWAY, False)
            pcscd.thaw()
            async with asyncio.timeout(60):
                await back.wait()
            await hsm.check()

    cards[0].insert()
    wait_until(opensc.present, "the card")
    try:
        asyncio.run(main())
    finally:
        pcscd.thaw()


@pytest.mark.parametrize(
    ("on_removal", "said"),
    [
        (
            "end",
            "ended carnet-1\nToken alice cannot be seen, {why}, so the tunnel to work was ended;",
        ),
        ("keep", "Token alice cannot be seen, {why}; the tunnel to work stays, as configured."),
    ],
    ids=["end", "keep"],
)
def test_a_look_at_the_token_of_a_tunnel_that_nobody_watches_takes_an_end(
    frozen_pcscd: CardReaders, tmp_path: Path, on_removal: str, said: str
) -> None:
    done = ended(asking(frozen_pcscd, tmp_path, LOOK_ONCE, on_removal))
    assert (done.returncode, done.stderr) == (0, "")
    why = watch._UNSEEN.removeprefix("cannot be seen, ")
    assert done.stdout.startswith(said.format(why=why))


def test_a_key_in_use_does_not_wait_for_a_pcscd_that_stands_still(
    frozen_pcscd: CardReaders, tmp_path: Path
) -> None:
    """The tunnels of its token are ended first, as if it were pulled."""
    done = ended(asking(frozen_pcscd, tmp_path, KEY_IN_USE))
    assert (done.returncode, done.stderr) == (4, f"carnet: {frozen.FROZEN}\n")
    assert done.stdout == "pulled 0123\n"


def test_a_tunnel_whose_token_nobody_can_look_at_is_ended(
    frozen_pcscd: CardReaders, tmp_path: Path
) -> None:
    done = ended(asking(frozen_pcscd, tmp_path, WATCH, "end"))
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("ended Token alice cannot be seen, since the smart-card service")


def test_a_tunnel_that_stays_without_its_token_outlives_a_pcscd_that_stands_still(
    pcscd: CardReaders, tmp_path: Path
) -> None:
    pcscd.freeze()
    watching = subprocess.Popen(
        asking(pcscd, tmp_path, WATCH, "keep"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        assert "the tunnel to work stays, as configured" in watching.stdout.readline()
        assert watching.poll() is None
    finally:
        pcscd.thaw()
        watching.kill()
        watching.communicate()


def test_a_pcscd_that_answers_ends_no_command_that_takes_its_time(
    pcscd: CardReaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a PIN pad: the service is asked, and the command goes on."""
    asked = threading.Event()
    answers = frozen._answers

    def answered() -> bool:
        try:
            return answers()
        finally:
            asked.set()

    monkeypatch.setattr(frozen, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(frozen, "_answers", answered)
    monkeypatch.setattr(frozen, "_waits_for_token", lambda _: True)
    with frozen.unless_frozen():
        assert asked.wait(30)
