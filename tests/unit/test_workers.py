"""What pytest-xdist's workers fork from (tests.workers)."""

import os
from pathlib import Path


def test_a_worker_forks_from_what_has_loaded_the_tests(pytestconfig):
    of_none = not hasattr(pytestconfig, "workerinput")
    parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    assert of_none or b"tests.loaded" in parent
