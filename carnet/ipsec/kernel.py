"""What the kernel of this machine can carry, by asking it."""

import subprocess
from collections.abc import Sequence

_NAMESPACES = (("unshare", "--user", "--map-root-user", "--net"), ("unshare", "--net"))
"""Thrown away with the probe in it: the machine's own state is never touched."""

_ADD = ("ip", "xfrm", "state", "add", "src", "192.0.2.1", "dst", "192.0.2.2", "proto")
_ESP = (
    *("esp", "spi", "1", "mode", "tunnel"),
    *("aead", "rfc4106(gcm(aes))", "0x" + 20 * "00", "128"),
)
_AH = (
    *("ah", "spi", "1", "mode", "tunnel"),
    *("auth-trunc", "hmac(sha256)", "0x" + 32 * "00", "128"),
)

_found: set[tuple[str, ...]] = set()
"""What this kernel was once found to have; a module may still come, none goes."""


def kernel_has_esp() -> bool:
    """Whether the kernel takes an ESP SA (RFC 4303) with AES-GCM (RFC 4106).

    Where that cannot be found out, the answer is no.
    """
    return _takes(_ESP)


def kernel_has_ah() -> bool:
    """Whether the kernel takes an AH SA (RFC 4302) with HMAC-SHA-256 (RFC 4868), as above."""
    return _takes(_AH)


def _takes(transform: tuple[str, ...]) -> bool:
    if transform not in _found and any(
        _accepts(namespace, (*_ADD, *transform)) for namespace in _NAMESPACES
    ):
        _found.add(transform)
    return transform in _found


def _accepts(namespace: Sequence[str], command: Sequence[str]) -> bool:
    try:
        probe = subprocess.run([*namespace, *command], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return probe.returncode == 0
