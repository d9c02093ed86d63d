"""The fields that messages are made of, and their bounds."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from carnet.durations import LONGEST_SECONDS

RequestId = Annotated[bytes, Meta(min_length=16, max_length=16)]
KeyId = Annotated[bytes, Meta(min_length=16, max_length=16)]
UserId = Annotated[
    str,
    Meta(max_length=128, pattern=r"\A[a-z0-9][a-z0-9._-]{0,62}@[a-z0-9][a-z0-9.-]{0,62}\Z"),
]
"""The paper's Alice@Host: who, at which Host."""
Name = Annotated[
    str,
    Meta(
        max_length=63,
        pattern=r"\A[a-z0-9][a-z0-9.-]*\Z",
        description="a name of a-z, 0-9, . and -, which begins with a letter or digit",
    ),
]
"""The name of a Host, a Target or a driver."""
Token = Annotated[
    str,
    Meta(
        max_length=64,
        pattern=r"\A[a-zA-Z0-9_.:+-]+\Z",
        description="a word of letters, digits and _ . : + -",
    ),
]
"""One word of a registry: a proposal, an IKE identity, a refusal's code."""
Text = Annotated[str, Meta(max_length=400, pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]
"""A sentence for a person; without control characters, since terminals obey those."""
PublicKey = Annotated[bytes, Meta(min_length=32, max_length=1024)]
"""DER SubjectPublicKeyInfo."""
Seconds = Annotated[int, Meta(ge=1, le=LONGEST_SECONDS)]
Time = Annotated[int, Meta(ge=0, le=2**40)]
"""Seconds since 1970, UTC."""
ObjectiveId = Annotated[int, Meta(ge=1, le=4)]
IkeVersion = Annotated[int, Meta(ge=1, le=2)]
IPsecMode = Annotated[str, Meta(pattern=r"\A(tunnel|transport)\Z")]
SuiteNumber = Annotated[int, Meta(ge=1, le=255)]
Custody = Annotated[str, Meta(pattern=r"\A(paired|split)\Z")]
Address = Annotated[str, Meta(max_length=45)]
Network = Annotated[str, Meta(max_length=49)]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all messages have in common: no field optional, none unknown."""


def printable(text: str) -> str:
    """Return a sentence that a Text field takes: no control characters, not too long."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)[:400]
