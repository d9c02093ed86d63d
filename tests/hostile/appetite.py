"""Prints how much more memory each of the worst inputs costs a decoder: `appetite NAME`."""

import gc
import json
import sys

from carnet.wire.fault import WireError
from tests.hostile import decoders, worst
from tests.hostile.memory import peak, reset_peak


def appetite(decode, data):
    gc.collect()
    before = reset_peak()
    try:
        decode(data)
    except WireError:
        outcome = "refused"
    else:
        outcome = "read"
    return outcome, peak() - before


def main(name):
    decode = getattr(decoders, name)
    inputs = worst.cbor(decoders.DECODERS[decode])
    print(json.dumps({what: appetite(decode, data) for what, data in inputs.items()}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
