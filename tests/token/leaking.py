"""A token that keeps the keys that it generates, and not what is copied from one that may leave."""

from typing import Any

import pytest
from pkcs11 import Attribute

from carnet.token import keys


class _Leaking:
    """A private key whose copies may leave, whatever is asked for."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def copy(self, attributes: dict[Attribute, Any]) -> Any:
        return self._real.copy(attributes | {Attribute.EXTRACTABLE: True})


def copies_that_leave(patch: pytest.MonkeyPatch) -> None:
    """Have the tokens of this process be so."""
    real = keys.generate_session_pair

    def made(*arguments: Any, extractable: bool, **named: Any) -> tuple[Any, Any]:
        public, private = real(*arguments, extractable=extractable, **named)
        return public, _Leaking(private) if extractable else private

    patch.setattr(keys, "generate_session_pair", made)
