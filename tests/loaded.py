"""Once imported, all that pytest was asked to run is loaded (tests.workers)."""

import json
import os
import sys

import pytest

from tests.workers import ASKED_FOR

# What does not load is told by the workers, who try it again.
pytest.main(
    ["--collect-only", "-qq", "-p", "no:cacheprovider", *json.loads(os.environ.pop(ASKED_FOR))]
)
sys.stdout.flush()
