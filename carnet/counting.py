"""Numbers of things, as sentences have them."""


def counted(number: int, thing: str) -> str:
    """Return the number and the thing, in the plural unless there is one of it."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def agreeing(number: int, one: str, others: str) -> str:
    """Return what goes with so many things: a verb, or what stands for them."""
    return one if number == 1 else others
