"""No input of a stranger makes a process use more than 16 MiB more memory."""

import json
import subprocess
import sys

import pytest

from tests.hostile.decoders import DECODERS

MOST = 16 * 1024 * 1024


@pytest.mark.parametrize("name", [decode.__name__ for decode in DECODERS])
def test_a_decoder_stays_small(name):
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.appetite", name],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    costs = json.loads(done.stdout)
    assert {outcome for outcome, _ in costs.values()} == {"refused"}
    assert {what: cost for what, (_, cost) in costs.items() if cost > MOST} == {}
