"""A Host in a process of its own, as `python -m tests.host.served DIRECTORY`.

Prints its port; ends when standard input does.
"""

import os
import sys
from pathlib import Path

from carnet.service import start_log
from carnet.token.finding import find_module
from carnet.token.module import load_module
from host_agent.config import LimitsSection
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.host.real_host import RealHost


def main(directory):
    os.environ[CONFIGURATION_VARIABLE] = str(prepare(directory / "softhsm"))
    start_log()  # to standard error: nobody reads what else stands on standard output
    limits = LimitsSection(connections_per_address=256)
    with RealHost(directory, load_module(find_module(None)), limits) as host:
        print(host.port, flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
