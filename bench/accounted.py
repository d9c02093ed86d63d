"""`carnet` with a clock at its seams: `python -P bench/accounted.py FILE ARGUMENTS …`.

The command does what it always does. Each moment counts for the innermost piece that goes
on; an import is a piece of its own, wherever it happens. How many milliseconds each took,
and when by the machine's clock the first line ran and the last one, goes into FILE as JSON.
It is a script, for so it begins as the console script does.
"""

import sys
import time

BEGUN = time.monotonic()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

IMPORTS, BETWEEN = "imports", "between these"
SENDING = "request sent until the answer is there"
_STRONGSWAN = "carnet.ipsec.strongswan:StrongSwan"
_NEGOTIATION = "carnet.ipsec.strongswan_negotiation:Negotiation"
PIECES = {
    "configuration read": ("token_client.config:load", "token_client.memory:memory_directory"),
    "PKCS#11 module started": ("carnet.token.module:load_module",),
    "token looked for, and looked at before it is used": (
        "carnet.token.presence:choose_token",
        "carnet.token.presence:Lookout.look",
    ),
    "IPsec daemon found and asked": (
        "carnet.ipsec.drivers:find_driver",
        "token_client.preflight:check_means",
        "token_client.name_servers:restore_those_of_a_lost_one",
    ),
    "packet filter asked whether it takes a block": ("token_client.preflight:check_block",),
    "PIN read": ("carnet.pin:PinSource.obtain",),
    "login and logout": ("carnet.token.session:_log_in", "carnet.token.session:_closing"),
    "cover and key pairs read": (
        "carnet.token.data:read_data",
        "carnet.cover:read_cover",
        "carnet.token.onetime:OneTimeKeys.__init__",
        "carnet.token.signing:find_pending_key",
    ),
    "step 1: signed and sealed": (
        "carnet.wire.session_key:EphemeralKey.generate",
        "token_client.custody:PairedMessages.seal",
    ),
    "request kept, and forgotten": (
        "token_client.pending:PendingStore.find",
        "token_client.pending:PendingStore.keep",
        "token_client.pending:PendingStore.leave_aside",
        "token_client.pending:PendingStore.drop",
    ),
    SENDING: ("token_client.host:HostSender.send",),
    "step 8: answer opened": ("token_client.custody:PairedMessages.open",),
    "step 9: networks around listed": ("token_client.granted:refuse_what_is_here",),
    "step 9: session recorded": (
        "token_client.bringing_up:BringingUp._remember_session",
        "token_client.sessions:SessionStore.keep_pairs_left",
    ),
    "step 9: block set": ("token_client.closing:Closing.close",),
    "step 9: tunnel loaded": (f"{_STRONGSWAN}.install",),
    "step 9: address inside set": ("carnet.ipsec.inner_address:install",),
    "step 9: IKE negotiated": (f"{_NEGOTIATION}.start",),
    "step 9: IKE_SA rekeyed": (f"{_NEGOTIATION}.rekey_ike",),
    "step 9: compared with what was agreed": (
        f"{_STRONGSWAN}._refuse_another_address",
        f"{_STRONGSWAN}.confirm",
    ),
    "MTU fitted": ("token_client.mtu:fit",),
    "step 10: pre-shared keys forgotten": (f"{_STRONGSWAN}.forget_secrets",),
    "step 10: key pair destroyed": ("carnet.token.onetime:OneTimeKeys.destroy",),
    "older tunnels looked for": ("token_client.connect:_replace_older",),
    "agent started": ("token_client.background:start",),
    "tunnel looked at again, and shown": (
        "token_client.opening:_refuse_what_was_ended",
        "token_client.opened:show",
    ),
}
"""By piece, the functions whose time it is: MODULE:NAME."""


class Clock:
    """Counts each moment for the innermost piece that goes on, in milliseconds."""

    def __init__(self, now: "Callable[[], float]" = time.monotonic) -> None:
        self.taken: dict[str, float] = {}
        self._now = now
        self._going_on = [BETWEEN]
        self._since = now()

    def count(self) -> None:
        """Count what has gone by so far."""
        now, piece = self._now(), self._going_on[-1]
        self.taken[piece] = self.taken.get(piece, 0.0) + 1000 * (now - self._since)
        self._since = now

    def run(
        self, piece: str, function: "Callable[..., Any]", /, *args: "Any", **named: "Any"
    ) -> "Any":
        """Call a function and count its time for a piece; also where it opens a context."""
        self.count()
        self._going_on.append(piece)
        try:
            result = function(*args, **named)
        finally:
            self.count()
            self._going_on.pop()
        return _Context(self, piece, result) if hasattr(result, "gen") else result


class _Context:
    """Counts what a function of contextlib.contextmanager does before and after its block."""

    def __init__(self, clock: Clock, piece: str, context: "Any") -> None:
        self._clock, self._piece, self._context = clock, piece, context

    def __enter__(self) -> "Any":
        return self._clock.run(self._piece, self._context.__enter__)

    def __exit__(self, *error: object) -> "Any":
        return self._clock.run(self._piece, self._context.__exit__, *error)


def places() -> dict[str, list[tuple[str, str]]]:
    """Return by module which names in it are of which piece."""
    found: dict[str, list[tuple[str, str]]] = {}
    for piece, functions in PIECES.items():
        for function in functions:
            module, _, name = function.partition(":")
            found.setdefault(module, []).append((name, piece))
    return found


def count_imports(clock: Clock) -> None:
    """Count imports from now on, and what is called of the modules that are imported.

    A function is exchanged before anybody can take it out of its module: _find_and_load() is
    what Python calls for a module that it has not loaded.
    """
    system: Any = sys.modules["_frozen_importlib"]
    find_and_load, wanted = system._find_and_load, places()  # noqa: SLF001

    def load(name: str, import_: object) -> object:
        module = clock.run(IMPORTS, find_and_load, name, import_)
        for dotted, piece in wanted.pop(name, ()):
            _exchange(clock, sys.modules[name], dotted, piece)
        return module

    system._find_and_load = load  # noqa: SLF001


def _exchange(clock: Clock, module: "Any", dotted: str, piece: str) -> None:
    from functools import wraps  # noqa: PLC0415  what `carnet` imports is to be counted

    *way, name = dotted.split(".")
    owner = module
    for each in way:
        owner = getattr(owner, each)
    function = getattr(owner, name)

    @wraps(function)
    def counted(*args: "Any", **named: "Any") -> "Any":
        return clock.run(piece, function, *args, **named)

    setattr(owner, name, counted)


def main() -> None:
    """Run the command."""
    path = sys.argv.pop(1)
    sys.argv[0] = "carnet"
    clock = Clock()
    count_imports(clock)
    try:
        from token_client.entry import main as carnet  # noqa: PLC0415  likewise

        carnet()
    finally:
        clock.count()
        over = time.monotonic()
        import json  # noqa: PLC0415  likewise

        with open(path, "w") as file:  # noqa: PTH123
            json.dump({"begun": BEGUN, "over": over, "taken": clock.taken}, file)


if __name__ == "__main__":
    main()
