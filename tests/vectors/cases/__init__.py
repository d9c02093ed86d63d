"""The cases, one module for each part of the protocol."""

from tests.vectors.cases import (
    control,
    documents,
    elsewhere,
    framing,
    requests,
    responses,
    session_keys,
    signatures,
    split,
    suites,
)

ALL = [
    case
    for module in (
        requests,
        responses,
        framing,
        signatures,
        documents,
        control,
        session_keys,
        elsewhere,
        suites,
        split,
    )
    for case in module.cases()
]
