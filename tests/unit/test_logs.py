"""A service's log: its form, and what is in every line."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import logging, structlog
from structlog.contextvars import bound_contextvars
from carnet.observation import LogForm
from carnet.service import start_log
start_log(LogForm("{form}"))
with bound_contextvars(request_id="0badcafe"):
    structlog.get_logger().info("opened", colour="blue")
    logging.getLogger("asyncio").error("a library's words")
"""

FAILING = """
import logging, structlog
from carnet.observation import LogForm
from carnet.service import start_log
start_log(LogForm("{form}"))
def use(psk):
    raise ValueError("it failed")
try:
    use("".join(("staple-", "battery")))
except ValueError:
    structlog.get_logger().exception("ours")
    logging.getLogger("asyncio").exception("a library's")
"""


UNHEARD = """
import logging, os, structlog
from carnet.observation import LogForm
from carnet.service import start_log
start_log(LogForm("{form}"))
for _ in range(100):
    structlog.get_logger().info("opened", colour="blue" * 50)
    logging.getLogger("asyncio").error("a library's words")
print("went on", flush=True)
os._exit(0)
"""


def said(script, form):
    done = subprocess.run(
        [sys.executable, "-c", script.format(form=form)], capture_output=True, text=True, check=True
    )
    assert not done.stdout
    return done.stderr


def written(form):
    return said(SCRIPT, form).splitlines()


def test_each_line_is_an_object_that_names_the_request_a_librarys_too():
    ours, librarys = map(json.loads, written("json"))
    assert (ours["event"], ours["colour"], ours["level"]) == ("opened", "blue", "info")
    assert librarys["event"] == "a library's words"
    assert ours["request_id"] == librarys["request_id"] == "0badcafe"


def test_people_get_text():
    lines = written("text")
    assert all("request_id=0badcafe" in line for line in lines)
    with pytest.raises(ValueError, match="line 1 column"):
        json.loads(lines[0])


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("into", ["2>/dev/full", "2>&-", "2> >(:)"])
def test_whoever_logs_goes_on_where_the_log_takes_nothing(form, into):
    """The disk is full, there is no standard error, or who read it has gone."""
    script = UNHEARD.format(form=form)
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {into}', "bash", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "went on\n"


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_failure_tells_where_it_was_and_no_value_that_it_had(form):
    """What a function was given, a PIN or a key, is in its frame."""
    shown = said(FAILING, form)
    assert shown.count("in use") == 2
    assert shown.count("ValueError: it failed") == 2
    assert "staple-battery" not in shown
