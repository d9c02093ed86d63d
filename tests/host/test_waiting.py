"""Nobody waits at the Host for what is not his to wait for: a Target, or who writes."""

import asyncio
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from structlog.testing import capture_logs

from carnet.database import transaction
from carnet.wire.keys import key_id_of
from host_agent import in_time
from host_agent.keydb import KeyDatabase
from host_agent.target_link import TargetSilentError
from lab.waiting import wait_until
from tests.host.real_host import http, read_all, sealed, spoiled, status_of
from tests.host.test_strangers import ONE_ANSWER
from tests.unit.examples import SoftwareKey


def test_whoever_has_overheard_a_request_holds_no_connection_with_it(make_host, monkeypatch):
    pair = SoftwareKey()
    host = make_host()
    host.add_pairs(pair)
    request = sealed(pair, target="work")
    with host, host.connect() as first:
        asked, speak = threading.Event(), asyncio.Event()

        async def pass_on(*_):
            asked.set()
            await speak.wait()
            raise TargetSilentError("target-unreachable", "silent")

        monkeypatch.setattr(host.service.parts.link, "pass_on", pass_on)
        first.sendall(http(request))
        assert asked.wait(30)
        assert host.post(spoiled(request)) == ONE_ANSWER
        assert status_of(host.post(request)) == 503
        host._loop.call_soon_threadsafe(speak.set)
        assert status_of(read_all(first)) == 503


def test_who_has_no_answer_in_time_is_told_to_come_again(make_host, monkeypatch):
    """However long the Key Database does not answer; what was begun is finished."""
    pair, host, answers = SoftwareKey(), make_host(), threading.Event()
    host.add_pairs(pair)
    request = sealed(pair)
    with host, KeyDatabase.opened(host._path) as other:
        with transaction(other.engine), monkeypatch.context() as soon:
            soon.setattr(in_time, "ANSWER_SECONDS", 0.1)
            soon.setattr(host.database.part, "targets_of", lambda _: answers.wait(30))
            ending = host.send(http(bytes(16), "POST /v1/endings HTTP/1.1"))
            answers.set()
            for answer in (host.post(request), ending):
                assert status_of(answer) == 503
                assert b"\r\nRetry-After: " in answer
        wait_until(lambda: status_of(host.post(request)) == 200, "the answer")


def test_the_log_names_the_request_whose_answer_is_late(make_host, monkeypatch):
    """By its Request ID, which nobody knows before it is opened: so longer is waited for one."""
    tries = {seconds: SoftwareKey() for seconds in (0.1, 1, 10)}
    host = make_host()
    host.add_pairs(*tries.values())
    with host, KeyDatabase.opened(host._path) as other:
        with transaction(other.engine), capture_logs() as logs:
            for number, (seconds, pair) in enumerate(tries.items(), start=1):
                monkeypatch.setattr(in_time, "ANSWER_SECONDS", seconds)
                request_id = bytes([number]) * 16
                assert status_of(host.post(sealed(pair, request_id=request_id))) == 503
                late = [each for each in logs if each["event"] == "answer-late"][-1]
                assert late["key_id"] == key_id_of(pair.public_key).hex()
                if "request_id" in late:
                    break
        assert late["request_id"] == request_id.hex()


def test_who_is_answered_by_reading_alone_waits_for_nobody_who_writes(make_host, place, database):
    """However many wait for the lock, which another process has."""
    pair, *others = (SoftwareKey() for _ in range(19))
    host, request, threads = make_host(place=place), sealed(pair), ThreadPoolExecutor(16)
    host.add_pairs(pair, *others)

    def spending():
        return host.database.calls.count("spend")

    with host, ExitStack() as waiting:
        host._loop.call_soon_threadsafe(host._loop.set_default_executor, threads)
        answer = host.post(request)
        assert status_of(answer) == 200
        with transaction(database.engine):
            writers = [waiting.enter_context(host.connect()) for _ in others]
            for writer, other in zip(writers, others, strict=True):
                writer.sendall(http(sealed(other)))
            wait_until(lambda: spending() >= 16 and threads._work_queue.qsize(), "too many writers")
            assert host.post(request).endswith(answer.partition(b"\r\n\r\n")[2])
            assert host.post(sealed(SoftwareKey())) == ONE_ANSWER
            assert select.select(writers, (), (), 0)[0] == []
        assert [status_of(read_all(writer)) for writer in writers] == [200] * len(writers)
