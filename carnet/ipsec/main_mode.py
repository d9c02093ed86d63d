"""IKEv1 main mode with a pre-shared key: what holds whichever daemon speaks it.

The key is chosen before a name is heard (RFC 2409 section 5.4), and Target does not know
from where a traveller will come: of two awaited at once, one would be given the other's.
"""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from carnet.errors import IPsecError
from carnet.ipsec.spec import Role, TunnelSpec


def expects_anybody(spec: TunnelSpec) -> bool:
    """Whether the peer may name itself as it likes: in IKEv1, to Target.

    Windows has no name but its address. Who it is, the key alone says.
    """
    return spec.ike_version == 1 and spec.role is Role.TARGET


class Turn:
    """Lets one traveller at a time be awaited at a daemon with IKEv1.

    `awaited` returns by which connections anybody may come, ours or not; `until` is when
    one of ours is no longer among them.
    """

    def __init__(self, awaited: Callable[[], Collection[str]], until: str) -> None:
        self._awaited = awaited
        self._until = until
        self._lock = threading.Lock()

    @contextmanager
    def of(self, spec: TunnelSpec) -> Iterator[None]:
        """Install a tunnel in here; raises IPsecError while another is awaited."""
        if not expects_anybody(spec):
            yield
            return
        with self._lock:
            others = [name for name in self._awaited() if name != spec.name]
            if others:
                raise IPsecError(
                    f"Another peer is awaited with IKEv1 ({others[0]}), and main mode tells no"
                    f" two apart; wait until {self._until}."
                )
            yield
