"""A short run of every fuzz target, the same each time; `make fuzz` runs longer."""

import subprocess
import sys

import pytest

from tests.fuzz.corpus import SOURCES, seeds
from tests.fuzz.targets import TARGETS

RUNS = 3000
PATIENT = "-report_slow_units=3600"
"""A busy machine is no finding; what never ends is ended by the fuzzer's own time limit."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What came of all of them: they share the loading of what is instrumented."""
    directory = tmp_path_factory.mktemp("fuzz")
    options = [f"-runs={RUNS}", "-seed=1", PATIENT]
    subprocess.run([sys.executable, "-m", "tests.fuzz.each", directory, *options], check=True)
    return directory


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_keeps_its_promises(name, results):
    said = (results / f"{name}.said").read_text(errors="replace")
    assert (results / f"{name}.status").read_text() == "0", said[-3000:]
    assert f"Done {RUNS} runs" in said
    assert list((results / f"{name}.broken").iterdir()) == []


@pytest.mark.parametrize("name", SOURCES)
def test_fuzzing_begins_with_the_vectors(name):
    assert name in TARGETS
    assert seeds(name)
