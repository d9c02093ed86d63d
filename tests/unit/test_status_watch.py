"""`carnet status --watch` where there is no screen."""

import time

import pytest
from msgspec.structs import replace

from tests.unit.test_returning import LIVE
from tests.unit.test_sessions import a_session
from token_client import status_watch
from token_client.status import TunnelState


def state(seconds_left, stood, **live):
    now = int(time.time())
    session = a_session(established_at=now - stood, expires=now + seconds_left)
    return TunnelState("carnet-00", session, replace(LIVE, **live), False, True, watched=True)


def test_what_is_new_is_shown_and_no_time_that_passes(monkeypatch, capsys):
    looks = iter(
        [
            state(3600, stood=54),
            state(3540, stood=114),
            state(200, stood=3454),
            state(199, stood=3455),
            state(198, stood=3456, bytes_in=7),
        ]
    )

    def look():
        try:
            return [next(looks)]
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(status_watch, "SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        status_watch.watch(look, as_json=False)
    shown = capsys.readouterr().out
    assert [line.split(",")[0].strip() for line in shown.splitlines() if "up for" in line] == [
        "up for 54s",
        "up for 57m34s",
        "up for 57m36s",
    ]
    assert shown.count("it ends soon") == 2
