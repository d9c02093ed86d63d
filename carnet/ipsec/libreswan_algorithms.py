"""The words of our proposals as Libreswan writes them, and what it reports in our words.

Ours are those of carnet.ipsec.strongswan_algorithms. Libreswan ties the PRF of IKE to its
integrity algorithm, and takes the key exchange of rekeyed IPsec SAs from IKE.
"""

import re
from collections.abc import Iterable

_ENCRYPTION = {
    "3des": ("3des", "3DES_CBC"),
    "aes{}": ("aes{}", "AES_CBC_{}"),
    "aes{}ctr": ("aes_ctr{}", "AES_CTR_{}"),
    "aes{}ccm16": ("aes_ccm_c{}", "AES_CCM_16_{}"),
    "aes{}gcm16": ("aes_gcm{}", "AES_GCM_16_{}"),
    "chacha20poly1305": ("chacha20_poly1305", "CHACHA20_POLY1305"),
    "null": ("null", "NULL"),
}
"""Our word, Libreswan's in ipsec.conf, and its name; braces: the key's bits."""

_ONE_LENGTH = {
    "3DES_CBC_192": "3des",
    "CHACHA20_POLY1305_256": "chacha20poly1305",
    "NULL_000": "null",
}
"""What has keys of one length alone is reported with their bits as well, once it is in use."""

_HASH = {
    "md5": ("md5", "HMAC_MD5", "HMAC_MD5_96"),
    "sha1": ("sha1", "HMAC_SHA1", "HMAC_SHA1_96"),
    "sha256": ("sha2_256", "HMAC_SHA2_256", "HMAC_SHA2_256_128"),
    "sha384": ("sha2_384", "HMAC_SHA2_384", "HMAC_SHA2_384_192"),
    "sha512": ("sha2_512", "HMAC_SHA2_512", "HMAC_SHA2_512_256"),
}
"""Our word, Libreswan's, and its names in a report: in IKE, and in ESP and AH."""

_KEY_EXCHANGE = {
    "x25519": ("dh31", "DH31"),
    "ecp256": ("dh19", "DH19"),
    "ecp384": ("dh20", "DH20"),
    "ecp521": ("dh21", "DH21"),
    "modp2048": ("dh14", "MODP2048"),
    "modp3072": ("dh15", "MODP3072"),
    "modp4096": ("dh16", "MODP4096"),
    "modp6144": ("dh17", "MODP6144"),
    "modp8192": ("dh18", "MODP8192"),
}

_CIPHERS = {
    ours.format(bits): tuple(name.format(bits) for name in names)
    for ours, names in _ENCRYPTION.items()
    for bits in (128, 192, 256)
}
_AEAD = frozenset(word for word in _CIPHERS if re.search("gcm|ccm|poly1305", word))
_ESN = frozenset({"esn", "noesn"})


class UnknownProposalError(Exception):
    """Libreswan has no words for a proposal; the argument is the proposal."""


def ike(proposals: Iterable[str]) -> str:
    """Return the value of `ike=`; raises UnknownProposalError."""
    return _joined(_ike(proposal) for proposal in proposals)


def esp(proposals: Iterable[str]) -> str:
    """Return the value of `esp=`, without key exchange; raises UnknownProposalError."""
    return _joined(_child(proposal, encrypts=True) for proposal in proposals)


def ah(proposals: Iterable[str]) -> str:
    """Return the value of `ah=`, without key exchange; raises UnknownProposalError."""
    return _joined(_child(proposal, encrypts=False) for proposal in proposals)


def esn(proposals: Iterable[str]) -> str:
    """Return the value of `esn=`: extended sequence numbers (RFC 4304) only where proposed."""
    asked = {word for proposal in proposals for word in proposal.split("-")} & _ESN
    return {_ESN: "either", frozenset({"esn"}): "yes"}.get(frozenset(asked), "no")


def pfs(proposals: Iterable[str]) -> str:
    """Return the value of `pfs=`: the key exchange of IKE once more, where one is proposed."""
    words = {word for proposal in proposals for word in proposal.split("-")}
    return "no" if words.isdisjoint(_KEY_EXCHANGE) else "yes"


def _joined(translated: Iterable[str]) -> str:
    """Return each once: without their key exchange, some proposals are the same."""
    return ",".join(dict.fromkeys(translated))


def _ike(proposal: str) -> str:
    words = proposal.split("-")
    ciphers = [word for word in words if word in _CIPHERS]
    hashes = [word for word in words if word in _HASH]
    prfs = [word.removeprefix("prf") for word in words if word.startswith("prf")]
    groups = [word for word in words if word in _KEY_EXCHANGE]
    known = len(ciphers) + len(hashes) + len(prfs) + len(groups) == len(words)
    aead = _AEAD.issuperset(ciphers)
    fits = not hashes if aead else len(hashes) == 1 and prfs in ([], hashes)
    prf = prfs or hashes
    if not (known and fits and [len(ciphers), len(prf), len(groups)] == [1, 1, 1]):
        raise UnknownProposalError(proposal)
    if prf[0] not in _HASH:
        raise UnknownProposalError(proposal)
    return f"{_CIPHERS[ciphers[0]][0]}-{_HASH[prf[0]][0]}-{_KEY_EXCHANGE[groups[0]][0]}"


def _child(proposal: str, *, encrypts: bool) -> str:
    words = [w for w in proposal.split("-") if w not in _KEY_EXCHANGE and w not in _ESN]
    ciphers = [_CIPHERS[word][0] for word in words if word in _CIPHERS]
    hashes = [_HASH[word][0] for word in words if word in _HASH]
    aead = encrypts and _AEAD.issuperset(w for w in words if w in _CIPHERS)
    due = (1 if encrypts else 0, 0 if aead else 1)
    if (len(ciphers), len(hashes)) != due or len(words) != sum(due):
        raise UnknownProposalError(proposal)
    return "-".join(ciphers + hashes)


_REPORTED_CIPHER = {names[1]: word for word, names in _CIPHERS.items()} | _ONE_LENGTH
_REPORTED_PRF = {names[1]: word for word, names in _HASH.items()}
_REPORTED_INTEGRITY = {names[2]: word for word, names in _HASH.items()}
_REPORTED_GROUP = {names[1]: word for word, names in _KEY_EXCHANGE.items()}


def ike_suite(reported: str) -> tuple[str, ...]:
    """Return the words for a report like "AES_GCM_16_256-HMAC_SHA2_384-DH31".

    A name without a word stands for itself, and so is part of no proposal.
    """
    words: list[str] = []
    for name in filter(None, reported.split("-")):
        if name in _REPORTED_PRF:
            prf = _REPORTED_PRF[name]
            words += [f"prf{prf}"] if _AEAD & set(words) else [prf, f"prf{prf}"]
        else:
            words.append(_REPORTED_CIPHER.get(name) or _REPORTED_GROUP.get(name, name))
    return tuple(words)


def child_suite(reported: str) -> tuple[str, ...]:
    """Return the words for a report like "AES_GCM_16_256-NONE" or "HMAC_SHA2_256_128"."""
    names = [name for name in reported.split("-") if name not in ("", "NONE")]
    known = _REPORTED_CIPHER | _REPORTED_INTEGRITY | _REPORTED_GROUP
    return tuple(known.get(name, name) for name in names)
