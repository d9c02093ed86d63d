"""The cases, one module for each part of the protocol."""

from tests.vectors.case import Case
from tests.vectors.cases import (
    control,
    documents,
    elsewhere,
    endings,
    framing,
    requests,
    responses,
    session_keys,
    signatures,
    split,
    suites,
)

_MODULES = (
    requests,
    responses,
    framing,
    signatures,
    documents,
    control,
    endings,
    session_keys,
    elsewhere,
    suites,
    split,
)


def all_cases() -> list[Case]:
    """Make every case; that takes seconds, of RSA."""
    return [case for module in _MODULES for case in module.cases()]
