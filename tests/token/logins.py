"""A program that logs in to the one token again and again, until its input closes.

It says `logged in` after the first time.
"""

import select
import sys

from carnet.token.finding import find_module
from carnet.token.module import load_module
from carnet.token.session import open_session
from tests.token.helpers import PIN


def main():
    token = load_module(find_module(None)).choose(None)
    said = False
    while not select.select([sys.stdin], [], [], 0)[0]:
        with open_session(token, PIN, writable=True):
            if not said:
                sys.stdout.write("logged in\n")
                sys.stdout.flush()
                said = True


if __name__ == "__main__":
    main()
