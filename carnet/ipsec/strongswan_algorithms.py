"""The words of strongSwan's proposals, and the names its daemon reports for them.

Both are names of IANA's IKEv2 transform registry; the words are those of
swanctl.conf(5). A proposal may use no other word: what came up could not be
compared with it.
"""

import re
from collections.abc import Iterable, Mapping

_ENCRYPTION = {
    "3DES_CBC": "3des",
    "AES_CBC": "aes{}",
    "AES_CTR": "aes{}ctr",
    "AES_CCM_16": "aes{}ccm16",
    "AES_GCM_16": "aes{}gcm16",
    "CHACHA20_POLY1305": "chacha20poly1305",
    "NULL": "null",
}
"""The braces stand for the key length in bits."""

_INTEGRITY = {
    "HMAC_MD5_96": "md5",
    "HMAC_SHA1_96": "sha1",
    "HMAC_SHA2_256_128": "sha256",
    "HMAC_SHA2_384_192": "sha384",
    "HMAC_SHA2_512_256": "sha512",
    "AES_XCBC_96": "aesxcbc",
    "AES_CMAC_96": "aescmac",
}

_PRF = {
    "PRF_HMAC_MD5": "prfmd5",
    "PRF_HMAC_SHA1": "prfsha1",
    "PRF_HMAC_SHA2_256": "prfsha256",
    "PRF_HMAC_SHA2_384": "prfsha384",
    "PRF_HMAC_SHA2_512": "prfsha512",
    "PRF_AES128_XCBC": "prfaesxcbc",
    "PRF_AES128_CMAC": "prfaescmac",
}

_KEY_EXCHANGE = {
    "CURVE_25519": "x25519",
    "CURVE_448": "x448",
    "ECP_256": "ecp256",
    "ECP_384": "ecp384",
    "ECP_521": "ecp521",
    "MODP_2048": "modp2048",
    "MODP_3072": "modp3072",
    "MODP_4096": "modp4096",
    "MODP_6144": "modp6144",
    "MODP_8192": "modp8192",
}

_KEY_LENGTHS = (128, 192, 256)

_ENCRYPTION_WORDS = frozenset(
    word.format(length) for word in _ENCRYPTION.values() for length in _KEY_LENGTHS
)
_AEAD_WORDS = frozenset(word for word in _ENCRYPTION_WORDS if re.search("gcm|ccm|poly1305", word))
_INTEGRITY_WORDS = frozenset(_INTEGRITY.values())
_PRF_WORDS = frozenset(_PRF.values())
_KEY_EXCHANGE_WORDS = frozenset(_KEY_EXCHANGE.values())
_ESN_WORDS = frozenset({"esn", "noesn"})
_WORDS = _ENCRYPTION_WORDS | _INTEGRITY_WORDS | _PRF_WORDS | _KEY_EXCHANGE_WORDS | _ESN_WORDS

_WEAK_WORDS = frozenset({"null", "3des", "md5", "sha1", "prfmd5", "prfsha1"})
"""Known, so that they are recognised, and never agreed to (RFC 8221, RFC 8247)."""


def weak_words(proposals: Iterable[str]) -> list[str]:
    """Return the words of the proposals that no tunnel may be protected by."""
    return sorted({word for proposal in proposals for word in proposal.split("-")} & _WEAK_WORDS)


_ELSEWHERE = {
    "IKE": {"extended sequence numbers": _ESN_WORDS},
    "ESP": {"a pseudo-random function": _PRF_WORDS},
    "AH": {"encryption": _ENCRYPTION_WORDS, "a pseudo-random function": _PRF_WORDS},
}
"""What a protocol has no transforms of (RFC 7296 section 3.3.3)."""


def faults(
    *, ike: Iterable[str] = (), esp: Iterable[str] = (), ah: Iterable[str] = ()
) -> list[str]:
    """Return what is wrong with proposals, one of "ESP aes256ctr without integrity" for each.

    No tunnel does without its parts, for benchmarks neither: encryption that is not
    authenticated protects nothing (RFC 8221 section 4), and IKE needs all four kinds
    (RFC 7296 section 3.3.3). Parts that do not belong there would never be agreed on.
    """
    return [
        f"{protocol} {proposal} {fault}"
        for protocol, proposals in (("IKE", ike), ("ESP", esp), ("AH", ah))
        for proposal in proposals
        for fault in _faults(protocol, frozenset(proposal.split("-")))
    ]


def _faults(protocol: str, words: frozenset[str]) -> Iterable[str]:
    yield from (f"without {what}" for what in _lacking(protocol, words))
    for what, kind in _ELSEWHERE[protocol].items():
        if not words.isdisjoint(kind):
            yield f"with {what}"
    if protocol != "AH" and _is_twice_authenticated(words):
        yield "with integrity beside its cipher's own"


def _is_twice_authenticated(words: frozenset[str]) -> bool:
    """Whether there is integrity beside a cipher that has its own (RFC 7296 section 3.3)."""
    return not words.isdisjoint(_AEAD_WORDS) and not words.isdisjoint(_INTEGRITY_WORDS)


def _lacking(protocol: str, words: frozenset[str]) -> Iterable[str]:
    """Yield what one proposal is without; its ciphers are alternatives, so each must be whole."""
    ciphers = words & _ENCRYPTION_WORDS if protocol != "AH" else frozenset()
    authenticated = bool(ciphers) and ciphers <= _AEAD_WORDS
    if protocol != "AH" and not ciphers:
        yield "encryption"
    if not authenticated and words.isdisjoint(_INTEGRITY_WORDS):
        yield "integrity"
    if protocol == "IKE" and words.isdisjoint(_PRF_WORDS | _INTEGRITY_WORDS):
        yield "a pseudo-random function"
    if protocol == "IKE" and words.isdisjoint(_KEY_EXCHANGE_WORDS):
        yield "a key exchange"


def unknown_words(proposals: Iterable[str]) -> list[str]:
    """Return the words of the proposals that are not in the tables above."""
    return sorted({word for proposal in proposals for word in proposal.split("-")} - _WORDS)


def suite(sa: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words for what an IKE_SA or CHILD_SA reports to have agreed on.

    A name without a word stands for itself, and so is part of no proposal.
    """
    encryption = sa.get("encr-alg", "")
    words = (
        _ENCRYPTION.get(encryption, encryption).format(sa.get("encr-keysize", "")),
        _word(_INTEGRITY, sa.get("integ-alg", "")),
        _word(_PRF, sa.get("prf-alg", "")),
        _word(_KEY_EXCHANGE, sa.get("dh-group", "")),
    )
    return tuple(word for word in words if word)


def _word(table: Mapping[str, str], name: str) -> str:
    return table.get(name, name)


def is_proposed(agreed: Iterable[str], proposals: Iterable[str]) -> bool:
    """Whether what was agreed on is one of the proposals, and the whole of it."""
    return any(_is_whole(frozenset(agreed), _words_of(proposal)) for proposal in proposals)


def _is_whole(agreed: frozenset[str], proposed: frozenset[str]) -> bool:
    """Whether nothing else was agreed on, and encryption and integrity if they were proposed.

    The key exchange may be missing: a first CHILD_SA has none (RFC 7296 section 1.2).
    """
    kinds = (_ENCRYPTION_WORDS, _INTEGRITY_WORDS)
    if _is_twice_authenticated(proposed):
        return False
    return agreed <= proposed and all(
        agreed.isdisjoint(kind) == proposed.isdisjoint(kind) for kind in kinds
    )


def _words_of(proposal: str) -> frozenset[str]:
    """Return a proposal's words; where it names no PRF, its integrity algorithm is the PRF."""
    words = frozenset(proposal.split("-"))
    if words.isdisjoint(_PRF_WORDS):
        words |= {f"prf{word}" for word in words & _INTEGRITY_WORDS}
    return words
