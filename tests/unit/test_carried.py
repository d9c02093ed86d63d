"""What is said of tunnels that the kernel carries on without an IKE daemon."""

import time
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from carnet.errors import DaemonGoneError, IPsecError
from carnet.ipsec import xfrm
from carnet.ipsec.spec import Role
from tests.unit.test_sessions import a_session
from token_client import carried, status
from token_client.carried import what_is_carried
from token_client.describing import describe, facts
from token_client.session_states import EndBegun, State
from token_client.sessions import SessionStore

TARGET = "198.51.100.2"
ASKED_FOR = (
    "src 192.0.2.2 dst {} \\\tproto esp spi 0xc45da3e1 reqid {} mode tunnel\\\treplay-window 0"
    " flag af-unspec"
)
SA = ASKED_FOR + "\\\taead rfc4106(gcm(aes)) <<Keys hidden>> 128"
NEW = "once the daemon is started again, `carnet connect` opens a new one"
LATER = int(time.time()) + 3600


@pytest.fixture
def kernel(monkeypatch):
    """Returns a way to have SAs in the kernel; none is none that it tells of."""
    monkeypatch.setattr(carried, "kernel_has_ipsec", lambda: True)
    monkeypatch.setattr(carried.shutil, "which", str)

    def have(*lines, returncode=0):
        listed = CompletedProcess([], returncode, "\n".join(lines), "")
        monkeypatch.setattr(xfrm, "list_sas", lambda: listed)

    return have


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(status.block, "names", lambda _: frozenset({"carnet-00"}))
    made = a_session(target_addresses=(TARGET,), expires=LATER)
    SessionStore(tmp_path).keep(made)
    return made


def test_it_is_told_by_the_sas_to_target(kernel):
    ours = a_session(target_addresses=(TARGET,))
    ended = a_session(State.ENDED, "Its token was pulled out.", target_addresses=(TARGET,))
    kernel(SA.format(TARGET, 7))
    assert what_is_carried([ours]) == (
        "the kernel carries the tunnel to work on without it until its keys are due to be renewed;"
        f" {NEW}"
    )
    assert what_is_carried([ended]) is None
    assert what_is_carried([a_session(target_addresses=(TARGET,), objective_id=1)]) is None
    others = (SA.format("198.51.100.3", 7), SA.format(TARGET, 0), ASKED_FOR.format(TARGET, 7))
    for other in others:
        kernel(other)
        assert what_is_carried([ours]) is None


def test_of_one_that_is_to_end_it_is_told_how_to_take_it_out(kernel):
    """Its end is only written down: what the kernel has goes on all the same."""
    to_end = a_session(State.TO_END, target_addresses=(TARGET,))
    kernel(SA.format(TARGET, 7))
    told = what_is_carried([to_end])
    assert told.startswith("the kernel carries the tunnel to work on without it until")
    assert told.endswith("; `carnet disconnect --release` takes it out without the daemon")
    assert what_is_carried([to_end, a_session(target_addresses=(TARGET,))]).endswith(NEW)


def test_where_the_kernel_does_not_tell_it_may(kernel):
    kernel(returncode=2)
    assert what_is_carried([a_session()]).startswith("the kernel may carry each tunnel on")


class Gone:
    """No daemon."""

    def status(self):
        raise DaemonGoneError("The daemon does not answer; start it.")


def test_status_says_that_a_tunnel_goes_on_whose_daemon_is_gone(kernel, session):
    kernel(SA.format(TARGET, 7))
    with pytest.raises(IPsecError) as raised:
        status.tunnels(Gone())
    assert raised.value.sentence.startswith(
        "The daemon does not answer; start it; the kernel carries the tunnel to work on"
    )
    assert "meanwhile nothing leaves in clear for 10.20.0.0/16" in raised.value.sentence


class Anew:
    """A daemon that was started anew, and may have another tunnel."""

    def __init__(self, *live):
        self._live = list(live)

    def status(self):
        return self._live

    def resumable(self):
        return frozenset()


def test_status_does_not_call_down_what_the_kernel_carries_on(kernel, session):
    kernel(SA.format(TARGET, 7))
    (state,) = status.tunnels(Anew())
    assert (state.carried, facts(state)["carried"]) == (True, True)
    assert "\n  not known to the IKE daemon, which was started anew, while the kernel carries" in (
        describe(state)
    )
    kernel()
    (state,) = status.tunnels(Anew())
    assert "\n  down, and closed" in describe(state)


def test_status_does_not_call_down_what_the_kernel_carries_on_of_one_that_is_to_end(
    kernel, session, tmp_path
):
    SessionStore(tmp_path).change(session.name, EndBegun())
    kernel(SA.format(TARGET, 7))
    (state,) = status.tunnels(Anew())
    assert state.carried
    assert "\n  its tunnel may go on, and what is meant for it is held back" in describe(state)
    kernel()
    (state,) = status.tunnels(Anew())
    assert "\n  its tunnel is down, and what is meant for it is held back" in describe(state)


def test_another_tunnel_to_the_same_target_is_not_taken_for_it(kernel, session):
    kernel(SA.format(TARGET, 7))
    live = SimpleNamespace(
        name="carnet-01",
        established=True,
        role=Role.CLIENT,
        local_address="192.0.2.2",
        remote_address=TARGET,
        virtual_address=None,
    )
    assert [each.carried for each in status.tunnels(Anew(live))] == [False, False]
