"""The kinds of fault that bytes from the network can have.

Each refusal inside the wire names its kind, so that a test that expects one kind
cannot be satisfied by another. Nothing of it reaches an unauthenticated sender.
"""

from enum import StrEnum


class Fault(StrEnum):
    """What is wrong with a message, by the names that the test vectors have.

    Two of them are found behind the wire: no such key pair, and Target's policy.
    """

    FRAMING = "framing"
    CANONICAL = "canonical form"
    VERSION = "version"
    SUITE = "suite"
    UNKNOWN_KEY = "unknown key"
    SEAL = "seal"
    SIGNATURE = "signature"
    BINDING = "binding"
    FIELD = "field"
    POLICY = "policy"


class WireError(Exception):
    """A message that is not what the protocol allows; never names a secret."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail
