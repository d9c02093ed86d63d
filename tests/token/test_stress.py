"""The module under threads: it neither crashes nor gives a wrong result.

`make soak` lets them work for longer.
"""

import json
import os
import subprocess
import sys

SECONDS = 120 if "CARNET_SOAK" in os.environ else 30
"""For how long the threads work; nothing is asserted on time."""
ENOUGH = 270
"""Seconds after which threads that wait for each other are ended."""
NICE = ("nice", "-n", "5")
"""They work for as long, but leave more of the processors to the other tests."""


def test_eight_threads_do_not_crash_the_module(tmp_path):
    """In a process of its own, whose death by a signal would be its exit status."""
    done = subprocess.run(
        [*NICE, sys.executable, "-m", "tests.token.stress", str(SECONDS), str(tmp_path / "tokens")],
        capture_output=True,
        text=True,
        timeout=ENOUGH,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted.keys() == {"sign", "agree", "list", "mint, wrap, unwrap", "destroy"}
