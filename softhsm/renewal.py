"""The process that writes the copies of SoftHSM2's tokens anew, once its input ends."""

import sys

from softhsm.kept import keep_tokens

if __name__ == "__main__":
    sys.stdin.buffer.read()
    keep_tokens()
