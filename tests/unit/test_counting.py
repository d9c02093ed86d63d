"""What messages count is one thing or several."""

import ast
import re
from pathlib import Path

from carnet.counting import agreeing, counted

ROOT = Path(__file__).parents[2]
PACKAGES = ("carnet", "token_client", "host_agent", "provisioning", "softhsm", "helper_agent")
SEVERAL = re.compile(r" (?!of )(?:[a-z]+ ){0,2}(?:pairs|keys|tunnels|files|cards|batches)\b")
NO_NUMBERS = ("{label}", "{info.label}", "{path}", "{text}", "{MAX_PAIRS}")


def test_one_and_others():
    assert [counted(number, "key pair") for number in (0, 1, 2)] == [
        *("0 key pairs", "1 key pair", "2 key pairs"),
    ]
    assert [agreeing(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


def numbers_of_several(path):
    """The lines of messages in which a number stands before a plural."""
    for text in ast.walk(ast.parse(path.read_text())):
        if isinstance(text, ast.JoinedStr):
            for value, after in zip(text.values, text.values[1:], strict=False):
                if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                    continue
                shown = f"{{{ast.unparse(value.value)}}}"
                if SEVERAL.match(str(after.value)) and shown not in NO_NUMBERS:
                    yield f"{path.relative_to(ROOT)}:{value.lineno} {shown}"


def test_no_message_counts_by_a_plural_alone():
    found = [
        place
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for place in numbers_of_several(path)
    ]
    assert found == []
