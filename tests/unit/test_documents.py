"""What the documents name as shown by a test is shown by one that is there."""

import ast
import re
from pathlib import Path

import pytest

from tests.guest import matrix

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted((*ROOT.glob("docs/*.md"), ROOT / "README.md"))


@pytest.fixture(scope="module")
def tests():
    return {
        node.name
        for path in ROOT.glob("tests/**/*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(document, tests):
    text = document.read_text()
    files = set(re.findall(r"\btests/[\w/]+\.py\b", text))
    assert sorted(file for file in files if not (ROOT / file).is_file()) == []
    named = set(re.findall(r"(?<![/\w])test_\w+\b(?!\.py)", text))
    assert sorted(named - tests) == []


def test_every_complaint_about_tokens_is_answered():
    text = (ROOT / "docs" / "TOKENS.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(1, 14))
    assert [row[0] for row in rows if "test" not in row[3]] == []


@pytest.mark.parametrize("name", ["matrix", "pairings"])
def test_the_tables_of_ipsec_are_those_that_a_whole_run_writes(name, tmp_path):
    again = tmp_path / "IPSEC.md"
    again.write_text(matrix.DOCUMENT.read_text())
    matrix.refresh(again, name, matrix.expected(name))
    assert again.read_text() == matrix.DOCUMENT.read_text()
