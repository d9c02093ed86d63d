"""Which modules must not be asked for locks; it cannot be asked of them.

OpenSC 0.23 holds a lock for ever where a card is pulled while it is being read: the next
call of the same thread waits for it without end. Without locks it only says that the card
is gone. All programs here but the stress test call a module from one thread at a time.
"""

from pathlib import PurePath

_WITHOUT_LOCKS = ("opensc-pkcs11", "onepin-opensc-pkcs11")
"""What the names of their files begin with."""


def takes_locks(path: str) -> bool:
    """Tell whether the module at this path may be told that several threads will call it."""
    return not PurePath(path).name.startswith(_WITHOUT_LOCKS)
