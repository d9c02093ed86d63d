"""Words of a command line that end up in the accounts."""

from typing import Any

import click
import msgspec

from carnet.wire.fields import Text

_LENGTH_OF_A_REASON = 400


class _Reason(click.ParamType[str]):
    """Why an operator does something, for the accounts: as long as the officer's may be."""

    name = "reason"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it; a usage error where it is no line of 1 to 400 printable characters."""
        try:
            return msgspec.convert(value if value.strip() else None, Text)
        except msgspec.ValidationError:
            sentence = f"it is one line of 1 to {_LENGTH_OF_A_REASON} printable characters"
            return self.fail(sentence, param, ctx)


REASON = _Reason()
