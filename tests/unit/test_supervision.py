"""What the service manager is told, by whom, and when no longer."""

import asyncio
import os
import socket

import pytest
from structlog.testing import capture_logs

from carnet.supervision import Manager
from tests.notified import manager


def test_no_child_inherits_the_socket(tmp_path):
    with manager(tmp_path) as heard:
        environment = {**heard.environment, "WATCHDOG_USEC": "1000", "PATH": "/bin"}
        Manager(environment).ready()
        heard.until("READY=1")
    assert environment == {"PATH": "/bin"}


def test_the_watchdog_of_another_process_is_not_fed():
    environment = {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid() + 1)}
    assert Manager(environment).watchdog_seconds is None


def test_the_watchdog_is_fed_only_while_the_service_is_well(tmp_path):
    answers = iter([[], ["sweep"], []])

    async def until_no_answer_is_left():
        with pytest.raises(RuntimeError, match="StopIteration"):
            await told.keep_alive(lambda: next(answers))

    with manager(tmp_path) as heard, capture_logs() as logs:
        told = Manager({**heard.environment, "WATCHDOG_USEC": "1000"})
        asyncio.run(until_no_answer_is_left())
        told.stopping()
        assert heard.until("STOPPING=1") == ["WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]
    assert [(each["event"], each["failed"]) for each in logs] == [("watchdog-unfed", ["sweep"])]


def test_without_a_manager_nobody_is_told():
    Manager({}).ready()


def test_a_manager_that_is_gone_does_no_harm(tmp_path):
    Manager({"NOTIFY_SOCKET": str(tmp_path / "gone.sock")}).ready()


def test_an_abstract_socket_is_one():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"carnet-test-{os.getpid()}"
        listening.bind(f"\0{name}")
        listening.settimeout(10)
        Manager({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert listening.recv(100).startswith(b"READY=1")
