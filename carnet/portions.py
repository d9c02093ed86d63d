"""Long streams, a portion at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(stream: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items of a stream in lists of that many; the last may have fewer."""
    items = iter(stream)
    while portion := list(islice(items, size)):
        yield portion
