"""What a service says of its parts, one of which may be silent."""

import asyncio

import pytest

from carnet import readiness
from carnet.errors import DaemonSilentError
from carnet.readiness import Readiness


@pytest.mark.parametrize("works", [True, False])
def test_what_was_asked_of_a_part_while_it_was_silent_says_nothing_of_now(monkeypatch, works):
    """It is asked again at once, and is said not to be ready only where it is not."""
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(readiness, "KEPT_SECONDS", -1)
    asked, goes_on = [], asyncio.Event()

    async def check():
        asked.append(1)
        if len(asked) == 1:
            await goes_on.wait()
        if len(asked) == 1 or not works:
            raise DaemonSilentError("It is silent.")

    async def main():
        seen = Readiness({"ike-daemon": check})
        silent = await seen.look()
        monkeypatch.setattr(readiness, "CHECK_SECONDS", 20)
        goes_on.set()
        return silent, await seen.look()

    silent, then = asyncio.run(main())
    assert silent == {"ike-daemon": "no answer for 0.05 seconds"}
    assert then == {"ike-daemon": None if works else "It is silent."}
    assert len(asked) == 2
