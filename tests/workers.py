"""Workers of a run that fork from a process which has loaded the tests.

Each worker collects all tests, whichever it comes to run. What they import is most of the
processor time that this takes, and in a new clone all of it is compiled first: so it is loaded
once, by a collection of its own, and the workers fork from there and collect what is loaded.

`tests.loaded` is that collection, and `tests.worker` the program that forks.
"""

import json
import os
import signal
from contextlib import closing, contextmanager
from pathlib import Path

ASKED_FOR = "CARNET_TESTS_TO_LOAD"
"""In the environment of the process that is forked from: what pytest was asked to run."""

_STANDARD_ERROR = 2
"""The process's own: pytest may have put a file of its own into the place of Python's."""


@contextmanager
def forked_workers(asked_for):
    """Have the workers of this run fork; the process that they fork from ends with this."""
    from execnet import gateway_io  # noqa: PLC0415  not in a guest, nor in a worker as it begins

    from lab.template import Template  # noqa: PLC0415

    os.environ[ASKED_FOR] = json.dumps(asked_for)
    template = Template(["tests.loaded"])
    del os.environ[ASKED_FOR]
    by_itself = gateway_io.Popen2IOMaster
    gateway_io.Popen2IOMaster = _forking_from(template, by_itself)
    try:
        with template:
            yield
    finally:
        gateway_io.Popen2IOMaster = by_itself


def _forking_from(template, by_itself):
    from lab.template import Place  # noqa: PLC0415

    class Worker(by_itself):
        """What execnet has of a worker: a process, and pipes to and from it."""

        def __init__(self, args, execmodel):
            theirs_in, ours_out = os.pipe()
            ours_in, theirs_out = os.pipe()
            with os.fdopen(theirs_in), closing(os.fdopen(theirs_out, "wb")):
                self.popen = template.start(
                    ["python", "-m", "tests.worker"],
                    Place(os.environ, Path.cwd()),
                    [theirs_in, theirs_out, _STANDARD_ERROR],
                )
            super(by_itself, self).__init__(
                os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb"), execmodel
            )

        def kill(self):
            self.popen.send_signal(signal.SIGKILL)

    return Worker
