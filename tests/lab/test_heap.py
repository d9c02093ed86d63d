"""What is allocated once the holes are filled lies on pages of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

HOLES = """
from lab.heap import fill_holes
there = [bytes({size}) for _ in range(2_000)]
del there[::2]
fill_holes()
pages = {{id(each) >> 12 for each in there}}
new = [bytes({size}) for _ in range(200)]
print(sum(id(each) >> 12 in pages for each in new))
"""
"""In a program of its own: the holes of this one would be filled for good."""


@pytest.mark.parametrize("size", [300, 3_000], ids=["from Python", "from malloc"])
def test_nothing_new_lies_between_what_is_there(size):
    argv = [sys.executable, "-c", HOLES.format(size=size)]
    root = Path(__file__).parents[2]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10
