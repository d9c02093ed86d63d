"""Target's signed word on why a tunnel ended, with the certificates that lead to the officer."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.vectors.case import Case, bad, good
from tests.vectors.cases.documents import OFFICER
from tests.vectors.encoding import encode
from tests.vectors.protocol import P384, Pair, sign1
from tests.vectors.values import REQUEST_ID, changed, ending, without

TARGET, MALLORY = Pair("target"), Pair("mallory")
_FIRST, _LAST = 1_700_000_000, 1_950_000_000
"""When the certificates begin and end."""
_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True)
class Certificate:
    """A certificate of the link (RFC 5280); as it stands, the Target's."""

    key: Pair = TARGET
    issuer: Pair = OFFICER
    name: str = "work"
    usage: ObjectIdentifier = _SERVER
    last: int = _LAST

    @property
    def der(self) -> bytes:
        """The same bytes each time: the signature is deterministic (RFC 6979)."""
        usage = x509.ExtendedKeyUsage([self.usage])
        names = x509.SubjectAlternativeName([x509.DNSName(self.name)])
        builder = _builder(self.name, self.key, self.issuer, self.last, authority=False)
        builder = builder.add_extension(usage, critical=True)
        return _signed(builder.add_extension(names, critical=False), self.issuer)


def authority(key: Pair = OFFICER, issuer: Pair | None = None) -> bytes:
    """Return an officer's own certificate, signed with her own key unless another is named."""
    by = issuer or key
    return _signed(_builder("officer", key, by, _LAST, authority=True), by)


def _builder(
    name: str, key: Pair, issuer: Pair, last: int, *, authority: bool
) -> x509.CertificateBuilder:
    public, by = key.private.public_key(), issuer.private.public_key()
    extensions = (
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(by), False),
        (x509.BasicConstraints(ca=authority, path_length=0 if authority else None), True),
        (_usage(signs_certificates=authority), True),
    )
    builder = x509.CertificateBuilder(
        issuer_name=_name("officer"),
        subject_name=_name(name),
        public_key=public,
        serial_number=1 if authority else 2,
        not_valid_before=datetime.fromtimestamp(_FIRST, UTC),
        not_valid_after=datetime.fromtimestamp(last, UTC),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder


def _signed(builder: x509.CertificateBuilder, issuer: Pair) -> bytes:
    hashing = issuer.curve.hashing
    made = builder.sign(issuer.private, hashing, ecdsa_deterministic=True)
    return made.public_bytes(Encoding.DER)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True)
class Proof:
    """A proved ending before it is encoded; as it stands, right in all its parts."""

    payload: bytes
    signer: Pair = TARGET
    kind: str = "ending"
    certificate: bytes = Certificate().der
    authority: bytes = authority()

    @property
    def signed(self) -> bytes:
        """The COSE_Sign1."""
        return encode(sign1(self.payload, encode(["carnet", 1, self.kind]), self.signer))

    def parts(self) -> dict[str, Any]:
        """Return the map that is encoded."""
        return {
            "signed": self.signed,
            "certificate": self.certificate,
            "authority": self.authority,
        }


RIGHT = Proof(encode(ending()))

GOOD: dict[str, dict[str, Any]] = {
    "defaults": ending(),
    "reason-longest": ending() | {"reason": "a" * 64},
    "certificate-begins": ending() | {"ended_at": _FIRST},
    "certificate-ends": ending() | {"ended_at": _LAST},
}

FIELDS: dict[str, Any] = {
    "version-two": changed(ending(), "version", 2),
    "reason-sentence": changed(ending(), "reason", "it ended"),
    "reason-none": changed(ending(), "reason", ""),
    "reason-too-long": changed(ending(), "reason", "a" * 65),
    "ended-at-negative": changed(ending(), "ended_at", -1),
    "ended-at-left-out": without(ending(), "ended_at"),
    "request-id-short": changed(ending(), "request_id", REQUEST_ID[:15]),
    "surplus-field": ending() | {"surplus": None},
}

_ELSEWHERE = replace(RIGHT, payload=encode(ending() | {"request_id": bytes(16)}))
_P384 = Pair("target on another curve", P384)

PROOFS: dict[str, tuple[Proof, str]] = {
    "of-another-tunnel": (_ELSEWHERE, "binding"),
    "of-another-target": (replace(RIGHT, certificate=Certificate(name="home").der), "signature"),
    "by-a-host": (replace(RIGHT, certificate=Certificate(usage=_CLIENT).der), "signature"),
    "certificate-was-over": (
        replace(RIGHT, certificate=Certificate(last=1_899_999_999).der),
        "signature",
    ),
    "before-the-certificate": (
        replace(RIGHT, payload=encode(ending() | {"ended_at": _FIRST - 1})),
        "signature",
    ),
    "by-mallory": (replace(RIGHT, signer=MALLORY), "signature"),
    "certified-by-mallory": (
        replace(
            RIGHT,
            signer=MALLORY,
            certificate=Certificate(MALLORY, MALLORY).der,
            authority=authority(MALLORY),
        ),
        "signature",
    ),
    "certified-by-mallory-in-the-officers-name": (
        replace(RIGHT, signer=MALLORY, certificate=Certificate(MALLORY, MALLORY).der),
        "signature",
    ),
    "by-the-officer-herself": (
        replace(RIGHT, signer=OFFICER, certificate=authority()),
        "signature",
    ),
    "authority-not-by-herself": (
        replace(RIGHT, authority=authority(OFFICER, MALLORY)),
        "signature",
    ),
    "is-a-head-of-accounts": (replace(RIGHT, kind="accounts-head"), "signature"),
    "on-another-curve": (
        replace(RIGHT, signer=_P384, certificate=Certificate(_P384).der),
        "suite",
    ),
    "certificate-is-none": (replace(RIGHT, certificate=b""), "signature"),
    "certificate-trailing-byte": (
        replace(RIGHT, certificate=RIGHT.certificate + b"\0"),
        "signature",
    ),
    "authority-is-none": (replace(RIGHT, authority=b""), "signature"),
    "certificate-too-large": (replace(RIGHT, certificate=bytes(3073)), "field"),
    "payload-trailing-byte": (
        replace(RIGHT, payload=RIGHT.payload + b"\0"),
        "canonical form",
    ),
}

_WHOLE = encode(RIGHT.parts())

MALFORMED: dict[str, tuple[bytes, str]] = {
    "truncated": (_WHOLE[:-1], "framing"),
    "trailing-byte": (_WHOLE + b"\0", "canonical form"),
    "too-large": (encode(bytes(8 * 1024)), "framing"),
    "no-authority": (encode(without(RIGHT.parts(), "authority")), "field"),
    "surplus-part": (encode(RIGHT.parts() | {"surplus": None}), "field"),
    "changed": (_WHOLE.replace(b"revoked", b"expired"), "signature"),
    "signed-too-large": (encode(RIGHT.parts() | {"signed": bytes(513)}), "field"),
}


def cases() -> list[Case]:
    """Return the ends of tunnels."""
    wrong = {
        **{
            name: (replace(RIGHT, payload=encode(value)), "field") for name, value in FIELDS.items()
        },
        **PROOFS,
    }
    return [
        *(_good(name, value) for name, value in GOOD.items()),
        *(_bad(name, encode(proof.parts()), fault) for name, (proof, fault) in wrong.items()),
        *(_bad(name, data, fault) for name, (data, fault) in MALFORMED.items()),
    ]


def _good(name: str, value: dict[str, Any]) -> Case:
    payload = encode(value)
    given = _inputs(encode(replace(RIGHT, payload=payload).parts()))
    return good(f"ending-{name}", "The end of a tunnel.", "verify ending", given, payload=payload)


def _bad(name: str, data: bytes, fault: str) -> Case:
    text = "Not the Target's word on this tunnel."
    return bad(f"ending-{name}", text, "verify ending", _inputs(data), fault)


def _inputs(message: bytes) -> dict[str, Any]:
    return {
        "officer_key": OFFICER.spki,
        "request_id": REQUEST_ID,
        "target": "work",
        "message": message,
    }
