"""How a service's process ends."""

import subprocess
import sys

HANGING = """
import asyncio, threading
from carnet import service
from carnet.database.readers import ask
async def serve():
    for start in (asyncio.to_thread, ask):
        begun = threading.Event()
        task = asyncio.create_task(start(lambda: begun.set() or threading.Event().wait()))
        await asyncio.to_thread(begun.wait)
        task.cancel()
service.HANGING_SECONDS = 0
service.run(serve())
"""


def test_a_thread_that_hangs_does_not_keep_a_service_that_has_ended():
    subprocess.run([sys.executable, "-c", HANGING], check=True, timeout=60)
