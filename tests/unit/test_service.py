"""How a service's process ends."""

import subprocess
import sys

from carnet.errors import UsageError

HANGING = """
import asyncio
import threading
from carnet import service
from carnet.database.readers import ask
async def serve():
    for start in (asyncio.to_thread, ask):
        begun = threading.Event()
        task = asyncio.create_task(start(lambda: begun.set() or threading.Event().wait()))
        await asyncio.to_thread(begun.wait)
        task.cancel()
    {end}
service.HANGING_SECONDS = 0
service.start_log()
service.run(serve())
"""


def test_a_thread_that_hangs_does_not_keep_a_service_that_has_ended():
    assert ended_by("").returncode == 0


def test_nor_one_that_ended_by_an_error_which_is_told():
    ended = ended_by("raise service.UsageError('Correct the port.')")
    assert ended.returncode == UsageError.exit_status
    assert "Correct the port." in ended.stderr
    ended = ended_by("raise KeyError('unexpected')")
    assert ended.returncode == 1
    assert "unexpected" in ended.stderr


def ended_by(statement):
    """Run a service of which a thread hangs, and which ends by that statement."""
    program = HANGING.format(end=statement)
    argv = [sys.executable, "-c", program]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
