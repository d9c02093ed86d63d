"""Fuzz every decoder, one after the other: `python -m tests.fuzz.each DIRECTORY [options]`.

Each in a process that forks from this one, which has the instrumented modules loaded. What
it said is in NAME.said of the directory, its exit status in NAME.status, and what broke a
promise in NAME.broken.
"""

import os
import sys
from pathlib import Path

from tests.fuzz.__main__ import main
from tests.fuzz.targets import TARGETS


def decoder_of_this_process(directory):
    """Fork for each decoder; return its name in the child, and None at the end."""
    for name in TARGETS:
        child = os.fork()
        if child == 0:
            return name
        _, status = os.waitpid(child, 0)
        (directory / f"{name}.status").write_text(str(os.waitstatus_to_exitcode(status)))
    return None


def fuzz(name, directory, options):
    corpus, broken = directory / f"{name}.corpus", directory / f"{name}.broken"
    corpus.mkdir()
    broken.mkdir()
    with (directory / f"{name}.said").open("w") as said:
        os.dup2(said.fileno(), sys.stdout.fileno())
        os.dup2(said.fileno(), sys.stderr.fileno())
    main(name, str(corpus), f"-artifact_prefix={broken / name}-", *options)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    if chosen := decoder_of_this_process(where):
        fuzz(chosen, where, sys.argv[2:])
