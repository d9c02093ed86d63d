"""One vector: what is done with which input, and what must come of it."""

import json
from dataclasses import dataclass
from typing import Any

_LINE = 64


@dataclass(frozen=True)
class Case:
    """A vector before it is written; its name is its path without the suffix."""

    name: str
    description: str
    operation: str
    inputs: dict[str, Any]
    expect: dict[str, Any]

    def text(self) -> str:
        """Return the file's text."""
        parts = {
            "description": self.description,
            "operation": self.operation,
            "inputs": _plain(self.inputs),
            "expect": _plain(self.expect),
        }
        return json.dumps(parts, indent=1, ensure_ascii=True) + "\n"


def good(name: str, description: str, operation: str, inputs: Any, **expect: Any) -> Case:
    """Return a vector that must be accepted."""
    return Case(f"good/{name}", description, operation, inputs, expect)


def bad(name: str, description: str, operation: str, inputs: Any, fault: str) -> Case:
    """Return a vector with one fault, and the kind of it."""
    return Case(f"bad/{name}", description, operation, inputs, {"fault": fault})


def _plain(value: Any) -> Any:
    """Replace bytes by hexadecimal, in lines where there are many."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, bytes):
        return value
    text = value.hex()
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return text if len(lines) < 2 else lines
