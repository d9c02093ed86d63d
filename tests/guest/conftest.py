"""Where the tests of this folder run, and what they share with those of the lab."""

from pathlib import Path

import pytest

from lab.pages import settle
from tests.guest.boots import scope_of
from tests.guest.bridge import Group, is_inside, write_down
from tests.lab.conftest import charons, client, lane, target, work_file, world

pytest.register_assert_rewrite(
    *(f"tests.guest.{name}" for name in ("cases", "ikev1", "libreswan", "objectives")),
    *(f"tests.guest.{name}" for name in ("halves_alive", "halves_on_the_wire", "halves_refused")),
    *(f"tests.guest.{name}" for name in ("rendered_fit", "rendered_peers")),
)

__all__ = ["charons", "client", "lane", "target", "work_file", "world"]

_HERE = Path(__file__).parent
_groups: dict[str, Group] = {}


def pytest_configure(config):
    config.addinivalue_line("markers", "outside: runs on this machine's kernel, not in a guest")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    if is_inside() or item.path.parent != _HERE or item.get_closest_marker("outside"):
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    boot = scope_of(item.nodeid)
    if boot not in _groups:
        same = [each for each in item.session.items if scope_of(each.nodeid) == boot]
        _groups[boot] = Group([x for x in same if not x.get_closest_marker("outside")])
    for report in _groups[boot].reports_of(item):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    if nextitem is None or scope_of(nextitem.nodeid) != boot:
        _groups.pop(boot).close()
    # What a test of this file that ran outside has left set up for the next.
    item.session._setupstate.teardown_exact(nextitem)
    return True


def pytest_sessionfinish():
    while _groups:
        _groups.popitem()[1].close()


if is_inside():

    @pytest.hookimpl
    def pytest_runtest_logreport(report):
        write_down(_config[0], report)

    _config = []

    @pytest.hookimpl
    def pytest_sessionstart(session):
        _config.append(session.config)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(session):
        settle()
        return (yield)
