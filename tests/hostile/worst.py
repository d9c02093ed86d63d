"""The worst bytes that we can think of, up to a size."""


def head(major, argument):
    """Return a CBOR head with the argument in its shortest form."""
    for width, code in ((0, None), (1, 24), (2, 25), (4, 26), (8, 27)):
        if width == 0 and argument < 24:
            return bytes([major << 5 | argument])
        if width and argument < 1 << (8 * width):
            return bytes([major << 5 | code]) + argument.to_bytes(width, "big")
    raise ValueError(argument)


def array_of(item, size):
    """Return an array of as many of these items as fit."""
    count = (size - 9) // len(item)
    return head(4, count) + item * count


def map_of(size):
    """Return a map with as many keys in their order as fit."""
    items, keys = b"", 0
    while len(items) < size - 16:
        items += head(0, keys) + b"\xf6"
        keys += 1
    return head(5, keys) + items


KEY = "\U0001f511".encode()
SMALL_MAP = b"\xa1\x00\xf6"


def cbor(size):
    """Return each of them by a name; all have at most so many bytes."""
    many = min(size, 64 * 1024)
    return {
        "nothing": b"",
        "nested arrays": b"\x81" * (size - 1) + b"\x00",
        "nested maps": b"\xa1\x00" * ((size - 1) // 2) + b"\x00",
        "nested endless arrays": b"\x9f" * size,
        "nested tags": b"\xc1" * (size - 1) + b"\x00",
        "an array said to be huge": b"\x9b" + b"\xff" * 8,
        "an array said to be of two thousand million": b"\x9a\x7f\xff\xff\xff" + bytes(size - 5),
        "a map said to be huge": b"\xbb\x7f" + b"\xff" * 7,
        "bytes said to be huge": b"\x5b\x7f" + b"\xff" * 7,
        "text said to be of two thousand million": b"\x7a\x7f\xff\xff\xff" + b"a" * (size - 5),
        "arrays said to be huge, in one another": b"\x9a\x00\xff\xff\xff" * 8,
        "small numbers": array_of(b"\x00", size),
        "empty arrays": array_of(b"\x80", size),
        "empty maps": array_of(b"\xa0", size),
        "empty texts": array_of(b"\x60", size),
        "small maps": array_of(SMALL_MAP, size),
        "arrays in arrays": array_of(b"\x81\x81\x81\x81\x80", size),
        "floats": array_of(b"\xf9\x3e\x00", size),
        "greatest numbers": array_of(b"\x1b" + b"\xff" * 8, size),
        "texts": array_of(b"\x61a", size),
        "a map of many": map_of(many),
        "long bytes": head(2, size - 9) + bytes(size - 9),
        "long text": head(3, size - 9) + b"a" * (size - 9),
        "text of four bytes each": head(3, (size - 9) // 4 * 4) + KEY * ((size - 9) // 4),
        "a string in pieces": b"\x5f" + b"\x41a" * ((size - 2) // 2) + b"\xff",
        "a number of many digits": b"\xc2" + head(2, size - 10) + b"\xff" * (size - 10),
        "a pattern": b"\xd8\x23" + head(3, size - 11) + b"(a*)*" * ((size - 11) // 5),
        "a shared value": b"\xd8\x1c\x81\xd8\x1d\x00",
        "too long": bytes(size + 1),
        "far too long": array_of(b"\x80", 64 * size),
    }  # fmt: skip
