"""A short run of every fuzz target, the same each time; `make fuzz` runs longer."""

import pytest

from tests.fuzz.campaign import fuzz
from tests.fuzz.corpus import SOURCES, seeds
from tests.fuzz.targets import TARGETS

RUNS = 3000
PATIENT = "-report_slow_units=3600"
"""A busy machine is no finding; what never ends is ended by the fuzzer's own time limit."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_keeps_its_promises(name, tmp_path):
    broken = tmp_path / "broken"
    done = fuzz(name, tmp_path / "corpus", broken, f"-runs={RUNS}", "-seed=1", PATIENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr
    assert list(broken.iterdir()) == []


@pytest.mark.parametrize("name", SOURCES)
def test_fuzzing_begins_with_the_vectors(name):
    assert name in TARGETS
    assert seeds(name)
