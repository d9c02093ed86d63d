"""The names of the key stores, as the configuration and each pair's record have them."""

from enum import StrEnum


class KeyStoreName(StrEnum):
    """Where Host keeps its half of paired keys."""

    TOKEN = "token"  # noqa: S105  no password
    """Each private key an object of its own on the HSM, destroyed there."""
    WRAPPED = "wrapped"
    """Wrapped in the Key Database, under a key of the batch that the HSM holds."""
