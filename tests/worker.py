"""A worker of a run, as execnet starts one by `python -c` (tests.workers)."""

import sys

if __name__ == "__main__":
    # What multiprocessing starts looks here for what to load again: for nothing, as in `-c`.
    __spec__ = None
    del __file__
    exec(eval(sys.stdin.readline()))  # noqa: S102, S307  what execnet has a worker begin with
