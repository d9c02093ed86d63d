"""What an onlooker who sees everything has seen: the facts that the invariants speak of."""

from collections import defaultdict


class Witness:
    """Facts of one run; nothing in it is undone by a crash."""

    def __init__(self) -> None:
        self.session_keys: dict[bytes, set[bytes]] = defaultdict(set)
        """Session keys that left Target, by key pair."""
        self.responses: dict[bytes, set[bytes]] = defaultdict(set)
        """Sealed responses that left Host, by key pair."""
        self.forwarded_valid: set[bytes] = set()
        """Key pairs that Host passed on while they were valid."""
        self.replied_unstored: set[bytes] = set()
        """Key pairs whose response left Host before it was stored."""
        self.replied_unrecorded: set[bytes] = set()
        """Request IDs whose answer left Target before it was recorded."""
        self.rejected_its_own: set[bytes] = set()
        """Key pairs whose own request got an unsealed no, while it could be answered."""
        self.taken_from_the_quick: set[bytes] = set()
        """Key pairs whose request one process took from another that still worked on it."""
        self.told_over: set[bytes] = set()
        """Key pairs of which a sealed answer said that they are over."""
        self.given_up_unfounded: set[bytes] = set()
        """Key pairs that a Client destroyed without a tunnel and without having been told."""
        self.burned_before_secrets: set[bytes] = set()
        """Key pairs that a Client destroyed with secrets of theirs in its IKE daemon."""
        self.unsettled: bytes | None = None
        """The key pair whose request was sent, and of which the Client must still know."""
        self.stranded: set[tuple[bytes, str]] = set()
        """Key pairs whose request had all it needs, and where it came to rest instead."""
        self.misplaced: set[tuple[str, str]] = set()
        """Parties that came to rest in a state that says something else than is so."""
        self.promised_ends: set[bytes] = set()
        """Request IDs of tunnels that an operator was told will end."""
