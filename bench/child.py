"""A process of its own that is asked, line by line, and answers in JSON."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def child(module: str, *arguments: str, log: Path) -> Iterator[tuple[Any, Callable[[], Any]]]:
    """Run a module; give what it says first, and what asks it to say something more.

    It has to end when its standard input does.
    """
    argv = [sys.executable, "-m", module, *arguments]
    with (
        log.open("a") as errors,
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as started,
    ):
        said, asked = started.stdout, started.stdin
        if said is None or asked is None:
            raise RuntimeError("The process has no pipes.")

        def heard() -> Any:
            line = said.readline()
            if not line:
                raise RuntimeError(f"{module} ended early; see {log.read_text()}")
            return json.loads(line)

        def ask() -> Any:
            asked.write("\n")
            asked.flush()
            return heard()

        try:
            yield heard(), ask
        finally:
            asked.close()


def say(value: Any) -> None:
    """Inside: answer."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
