"""What fails unforeseen where nobody is in the foreground: it is said, and nothing stops for it."""

from collections.abc import Callable

from carnet.errors import CarnetError


def reason(error: BaseException) -> str:
    """Return why something failed, as the end of a sentence without its stop."""
    if isinstance(error, CarnetError):
        return error.sentence.rstrip(".")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


class Faults:
    """Says each fault once; `sentence` is told the reason."""

    def __init__(self, sentence: Callable[[str], str], tell: Callable[[str], None]) -> None:
        self._sentence = sentence
        self._tell = tell
        self._told: set[str] = set()

    def tell(self, error: BaseException) -> None:
        """Say it, unless it was said before."""
        said = self._sentence(reason(error))
        if said not in self._told:
            self._told.add(said)
            self._tell(said)
