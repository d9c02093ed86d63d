"""The Host's way to its Targets, of which there may be many."""

import asyncio
import ssl

import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from host_agent import endings, revoked_tunnels
from host_agent.config import TargetSection
from host_agent.outcome import Later
from host_agent.revoked_tunnels import end_all_revoked
from host_agent.target_link import TargetLink, TargetSilentError

TARGETS = 150
"""More than the connections that an aiohttp client has at once, unless told otherwise."""
PATIENCE = 20


async def all_are_asked():
    """Ask each for tunnels that ended, which is answered when one does; see each be asked."""
    asked, all_asked, over = set(), asyncio.Event(), asyncio.Event()

    async def hold(reader, writer):
        asked.add(await reader.readline())
        if len(asked) == TARGETS:
            all_asked.set()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    targets = {str(n): TargetSection(url=f"http://127.0.0.1:{port}/{n}") for n in range(TARGETS)}
    link = TargetLink(targets, ssl.create_default_context())
    polls = [asyncio.create_task(link.ended(target, 0)) for target in targets]
    try:
        await asyncio.wait_for(all_asked.wait(), PATIENCE)
    finally:
        over.set()
        await asyncio.gather(*polls, return_exceptions=True)
        await link.close()
        server.close()


def test_waiting_for_each_of_many_targets_keeps_no_connection_from_a_request():
    asyncio.run(all_are_asked())


class Revoked:
    """The Key Database's part: what is to end, until Target was told and has it written down."""

    def __init__(self, *request_ids):
        self.asked, self.all_asked, self._left = [], asyncio.Event(), list(request_ids)

    def tunnels_to_end(self, _):
        return list(self._left)

    def record_end_asked(self, _, request_id):
        self.asked.append(request_id)
        self._left.remove(request_id)
        if not self._left:
            self.all_asked.set()


async def all_revoked_end(revoked, answer):
    """Have them end at a Target that answers as `answer` says for each, by its Request ID."""

    async def serve(reader, writer):
        asked = await reader.readuntil(b"\r\n\r\n")
        said = await answer(bytes.fromhex(asked.split()[1].rpartition(b"/")[2].decode()))
        head = f"HTTP/1.1 {said}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    link = TargetLink({"work": TargetSection(url=url)}, ssl.create_default_context())
    work = end_all_revoked(revoked, link, ("work",), lambda _, work: work())
    ending = asyncio.create_task(work)
    try:
        await asyncio.wait_for(revoked.all_asked.wait(), PATIENCE)
    finally:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        await link.close()
        server.close()


def test_a_revoked_tunnel_is_ended_again_until_target_has_written_that_down(monkeypatch):
    """A restart of Target would forget why; and the others do not wait for it."""
    monkeypatch.setattr(revoked_tunnels, "LOOK_SECONDS", 0)
    monkeypatch.setattr(revoked_tunnels, "_PAUSE_SECONDS", 0)
    answers = {
        b"1": iter(["503 Full", "500 Broken", "503 Full", "503 Full", "204 Done"]),
        b"2": iter(["202 Later"]),
    }

    async def answer(request_id):
        return next(answers[request_id])

    revoked = Revoked(b"1", b"2")
    with capture_logs() as logs:
        asyncio.run(all_revoked_end(revoked, answer))
    assert revoked.asked == [b"2", b"1"]
    assert not any(map(list, answers.values()))
    waited = [each["request_id"] for each in logs if each["event"] == "revoked-wait"]
    assert waited == [b"1".hex()] * 3, "once for each reason in a row"


def test_no_revoked_tunnel_waits_for_another_whose_end_takes_its_time():
    """A peer is silent, or Target's database stands still: the first is answered last."""
    others_asked = asyncio.Event()

    async def answer(request_id):
        if request_id == b"3":
            others_asked.set()
        elif request_id == b"1":
            await others_asked.wait()
        return "204 Done"

    revoked = Revoked(b"1", b"2", b"3")
    asyncio.run(all_revoked_end(revoked, answer))
    assert revoked.asked == [b"2", b"3", b"1"]


def test_a_user_s_twenty_tunnels_are_ended_side_by_side():
    """Each may have to wait for its peer, and all are to be down within two seconds."""
    ids, together = [bytes([n]) for n in range(20)], asyncio.Barrier(20)

    async def answer(_):
        await together.wait()
        return "204 Done"

    revoked = Revoked(*ids)
    asyncio.run(all_revoked_end(revoked, answer))
    assert sorted(revoked.asked) == ids


def test_what_failed_is_asked_for_after_pauses_that_grow_to_a_bound():
    failed = revoked_tunnels.Failed(b"1", "work")
    pauses = []
    for _ in range(6):
        failed.wait(100)
        pauses.append(failed.again_at - 100)
    assert pauses == [0.5, 1, 2, 4, 5, 5]


class Known:
    """The Key Database's part: all Request IDs are of tunnels of one Target."""

    def targets_of(self, _):
        return ("work",)


async def ask_for_endings(request_ids):
    """Ask for each, at a Target that keeps them; then for the end of a revoked one.

    Returns what was asked before that was, and what each came to when they were let go.
    """
    asked, full, go_on = [], asyncio.Event(), asyncio.Event()

    async def serve(reader, writer):
        line = (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]
        asked.append(line)
        if len(asked) == min(endings.AT_ONCE, len(set(request_ids))):
            full.set()
        if not line.startswith(b"DELETE"):
            await go_on.wait()
        writer.write(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    link = TargetLink({"work": TargetSection(url=url)}, ssl.create_default_context())
    questions = endings.Endings()
    waiting = [asyncio.create_task(questions.ending_of(Known(), link, r)) for r in request_ids]
    try:
        async with asyncio.timeout(PATIENCE):
            await full.wait()
            assert await link.end("work", b"revoked")
            before = list(asked)
            go_on.set()
            return before, await asyncio.gather(*waiting), len(asked)
    finally:
        await questions.stop()
        await asyncio.gather(*waiting, return_exceptions=True)
        await link.close()
        server.close()


@pytest.mark.parametrize(
    ("request_ids", "at_once", "in_all"),
    [([b"1"] * 100, 1, 1), ([bytes([n]) for n in range(50)], endings.AT_ONCE, 50)],
)
def test_questions_for_endings_leave_the_way_to_target_to_revocations(request_ids, at_once, in_all):
    before, outcomes, asked = asyncio.run(ask_for_endings(request_ids))
    assert [line.split()[0] for line in before] == [b"GET"] * at_once + [b"DELETE"]
    assert outcomes == [Later(endings.STILL_LIVE)] * len(request_ids)
    assert asked == in_all + 1


def test_why_target_cannot_be_reached_is_said_in_plain_words():
    async def ask():
        target = TargetSection(url="https://127.0.0.1:1")  # where nobody listens
        link = TargetLink({"work": target}, ssl.create_default_context())
        try:
            await link.end("work", b"1")
        finally:
            await link.close()

    with pytest.raises(TargetSilentError) as raised:
        asyncio.run(ask())
    assert "no connection to 127.0.0.1:1 (Connect call failed" in str(raised.value)
    assert "SSLContext" not in str(raised.value)


class Broken:
    """A Key Database that fails."""

    def targets_of(self, _):
        raise OperationalError("SELECT target", None, Exception("the disk is full\nCONTEXT: more"))


def test_a_question_for_an_ending_that_the_database_fails_is_named_in_one_line():
    with capture_logs() as logs:
        asyncio.run(endings.Endings().ending_of(Broken(), None, b"\x17"))
    (line,) = logs
    assert (line["event"], line["request_id"]) == ("database-failed", "17")
    assert line["reason"] == "the disk is full"
