"""What the kernel of this machine can carry, by asking it."""

import subprocess
from collections.abc import Sequence

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--net")
"""Thrown away with the probe in it: the machine's own state is never touched."""

_NULL_KEY = "0x" + 20 * "00"

_ESP_STATE = (
    *("ip", "xfrm", "state", "add", "src", "192.0.2.1", "dst", "192.0.2.2"),
    *("proto", "esp", "spi", "1", "mode", "tunnel"),
    *("aead", "rfc4106(gcm(aes))", _NULL_KEY, "128"),
)


def kernel_has_esp() -> bool:
    """Whether the kernel takes an ESP SA (RFC 4303) with AES-GCM (RFC 4106).

    Where that cannot be found out, the answer is no.
    """
    return _accepts(_NAMESPACE, _ESP_STATE) or _accepts(("unshare", "--net"), _ESP_STATE)


def _accepts(namespace: Sequence[str], command: Sequence[str]) -> bool:
    try:
        probe = subprocess.run([*namespace, *command], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return probe.returncode == 0
