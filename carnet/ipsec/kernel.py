"""What the kernel of this machine can carry, by asking it."""

import re
from collections.abc import Sequence

from carnet.ipsec import programs

_NAMESPACES = (
    ("unshare", "--user", "--map-root-user", "--net"),
    ("unshare", "--user", "--keep-caps", "--net"),
    ("unshare", "--net"),
)
"""Thrown away with the probe in it: the machine's own state is never touched.

A root without CAP_SETFCAP, as carnet-helper is, may map itself into none (user_namespaces(7)),
and needs capset(2) for the second; most services may not call that.
"""

_ESP, _AH = "esp", "ah"
_TRANSFORMS = {
    _ESP: f"aead rfc4106(gcm(aes)) 0x{20 * '00'} 128",
    _AH: f"auth-trunc hmac(sha256) 0x{32 * '00'} 128",
}
_ADD = "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto {} spi 1 mode tunnel {}\n"
_LIST = "xfrm state list\n"
_TAKEN = re.compile(r"^\s*proto (\w+) ", re.MULTILINE)

_found: set[str] = set()
"""What this kernel was once found to have; a module may still come, none goes."""


def kernel_has_esp() -> bool:
    """Whether the kernel takes an ESP SA (RFC 4303) with AES-GCM (RFC 4106).

    Where that cannot be found out, the answer is no.
    """
    return _takes(_ESP)


def kernel_has_ah() -> bool:
    """Whether the kernel takes an AH SA (RFC 4302) with HMAC-SHA-256 (RFC 4868), as above."""
    return _takes(_AH)


def _takes(protocol: str) -> bool:
    # Both by one program, which ends at one that is not taken; then the one that is meant.
    for namespace in _NAMESPACES:
        for asked in (tuple(_TRANSFORMS), (protocol,)):
            if protocol not in _found:
                _found.update(_taken_in(namespace, asked))
    return protocol in _found


def _taken_in(namespace: Sequence[str], protocols: Sequence[str]) -> list[str]:
    """Return the protocols of the SAs that the kernel takes in such a namespace, if it takes all.

    None where that cannot be found out. Raises IPsecError.
    """
    lines = [_ADD.format(each, _TRANSFORMS[each]) for each in protocols]
    try:
        probe = programs.run([*namespace, "ip", "-batch", "-"], "".join([*lines, _LIST]))
    except FileNotFoundError:
        return []
    return _TAKEN.findall(probe.stdout)
