"""Which SAs of the kernel count as those of a Libreswan daemon that was killed."""

import json
import os
import subprocess
import time
from dataclasses import asdict
from datetime import datetime
from types import SimpleNamespace

import pytest

from carnet.errors import NothingLeftError, TunnelLeftError
from carnet.ipsec import inner_address, libreswan
from carnet.ipsec import libreswan_conf as conf
from carnet.ipsec import libreswan_leftovers as leftovers
from carnet.ipsec.libreswan_conf import Head
from carnet.ipsec.libreswan_tools import Tools
from carnet.ipsec.programs import Done
from carnet.ipsec.spec import Role
from lab.waiting import wait_until
from tests.unit.iproute import stand_in
from tests.unit.test_sessions import a_session
from token_client import closing
from token_client.sessions import SessionStore

LISTED = (
    "src 192.0.2.1 dst 192.0.2.2\\\tproto esp spi 0x{spi:08x} reqid 16389 mode tunnel\\"
    "\tlifetime current:\\\t  add {added:%Y-%m-%d %H:%M:%S} use -\n"
)


@pytest.fixture
def kernel(monkeypatch):
    """Stands for `ip`: lists an SA of each given moment, and remembers which are removed."""

    class Kernel:
        listed, removed = "", ""

        def has(self, *moments):
            added = enumerate(map(datetime.fromtimestamp, moments), start=1)
            self.listed = "".join(LISTED.format(spi=n, added=when) for n, when in added)

        def __call__(self, *arguments, said=""):
            self.removed += said
            return Done(arguments, 0, self.listed)

    made = Kernel()
    stand_in(monkeypatch, made)
    return made


@pytest.fixture
def daemon():
    """A process, and the moments around its beginning, which /proc tells to 10 ms."""
    wait_until(lambda: 0.02 < time.time() % 1 < 0.2, "the beginning of a second")
    before = time.time()
    with subprocess.Popen(["sleep", "infinity"]) as process:
        yield process.pid, before, time.time()
        process.kill()


def test_what_is_a_second_older_than_the_daemon_goes(kernel, daemon):
    pid, before, _ = daemon
    kernel.has(int(before) - 1)
    leftovers.sweep(pid, "")
    assert "spi 0x00000001" in kernel.removed


def test_what_is_not_older_than_the_daemon_or_is_known_to_it_stays(kernel, daemon):
    pid, before, after = daemon
    kernel.has(int(before) - 3, int(after))
    leftovers.sweep(pid, "esp.1@192.0.2.2")
    assert kernel.removed == ""


def test_this_very_process_is_older_than_what_it_makes_now(kernel):
    kernel.has(time.time())
    leftovers.sweep(os.getpid(), "")
    assert kernel.removed == ""


def test_the_end_of_any_tunnel_takes_them_away(kernel, daemon, monkeypatch, tmp_path):
    pid, before, _ = daemon
    kernel.has(int(before) - 1, int(before) - 2)
    monkeypatch.setattr(Tools, "whack", lambda *_: "esp.2@192.0.2.2")
    monkeypatch.setattr(libreswan, "listener", lambda _: pid)
    libreswan.Libreswan(tmp_path / "pluto.ctl").down("carnet-7")
    assert kernel.removed.count("delete") == 1
    assert "spi 0x00000001" in kernel.removed


def test_of_a_daemon_whose_beginning_is_not_known_nothing_goes(kernel):
    kernel.has(0)
    leftovers.sweep(0, "")
    assert kernel.removed == ""


@pytest.fixture
def reserved(monkeypatch, tmp_path):
    """A Client's tunnel, and what its daemon, asked to end it, has left in the kernel (`ip`)."""
    removed = []
    sas = [
        (
            "src 192.0.2.2 dst 192.0.2.1\\\tproto ah spi 0xea003b0b reqid 16392 mode transport\\"
            "\treplay-window 0 \\\tsel src 192.0.2.2/32 dst 192.0.2.1/32 \\"
        ),
        (
            "src 192.0.2.3 dst 192.0.2.1\\\tproto ah spi 0xea003b0c reqid 16396 mode transport\\"
            "\treplay-window 0 \\\tsel src 192.0.2.3/32 dst 192.0.2.1/32 \\"
        ),
        (
            "src 192.0.2.2 dst 192.0.2.1\\\tproto ah spi 0xea003b0d reqid 16400 mode transport\\"
            "\treplay-window 128 \\\tauth-trunc hmac(sha256) 0x (0 bits) 128\\"
        ),
        (
            "src 192.0.2.2 dst 192.0.2.1\\\tproto ah spi 0xea003b0e reqid 7 mode transport\\"
            "\treplay-window 0 \\\tsel src 192.0.2.2/32 dst 192.0.2.1/32 \\"
        ),
    ]

    def run(*arguments, said=""):
        removed.extend(line.split(" spi ")[1] for line in said.splitlines())
        return Done(arguments, 0, "\n".join(sas) if "state" in arguments else "")

    stand_in(monkeypatch, run)
    monkeypatch.setattr(libreswan, "listener", lambda _: 0)
    (tmp_path / "carnet").mkdir()
    (tmp_path / "carnet" / "carnet-7.conf").write_text(conf.head_line(HOSTS))
    return removed


@pytest.mark.parametrize(
    ("knows", "gone"), [("", ["0xea003b0b"]), ('000 "other": 192.0.2.1...192.0.2.2', [])]
)
def test_what_is_reserved_for_a_tunnel_that_is_over_goes_with_it(
    reserved, monkeypatch, tmp_path, knows, gone
):
    """Unless the daemon has another with that peer, for which it may be."""
    monkeypatch.setattr(Tools, "whack", lambda *_: knows)
    libreswan.Libreswan(tmp_path / "pluto.ctl").down("carnet-7")
    assert reserved == gone


HEAD = Head(Role.CLIENT, "10.99.0.7", ("10.20.0.0/16",), ("192.0.2.2",))
HOSTS = Head(Role.CLIENT, None, (), ("192.0.2.2",))
GATEWAY = Head(Role.TARGET, "10.99.0.7", ())
GATE = Head(Role.TARGET, None, ())
AT_GATEWAY = ("10.20.0.0/16", "10.99.0.7/32", "tunnel", 16393)
HERS = ("10.99.0.7/32", "10.20.0.0/16", "tunnel", 16393)
BETWEEN_HOSTS = ("192.0.2.1/32", "192.0.2.2/32", "transport", 16397)
ANOTHER = ("10.99.0.8/32", "10.20.0.0/16", "tunnel", 16401)


@pytest.fixture
def left(monkeypatch):
    """Stands for `ip`, and for a kernel from which SAs and policies can be deleted."""
    kernel = SimpleNamespace(sas=[], policies=[], keeps=False)

    def has(source, destination, mode, reqid):
        for spi, ends in enumerate([("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1")]):
            kernel.sas.append(
                f"src {ends[0]} dst {ends[1]}\\\tproto esp spi 0x{reqid + spi:08x} reqid {reqid}"
                f" mode {mode}\\"
            )
        for direction in ("out", "in", "fwd"):
            here, there = (source, destination) if direction == "out" else (destination, source)
            kernel.policies.append(
                f"src {here} dst {there} \\\tdir {direction} priority 1753281 \\\ttmpl src"
                f" 192.0.2.1 dst 192.0.2.2\\\t\tproto esp reqid {reqid} mode {mode}\\"
            )

    def run(*arguments, said=""):
        for line in said.splitlines() if not kernel.keeps else ():
            if line.startswith("xfrm state delete"):
                doomed = line.split(" spi ")[1]
                kernel.sas = [each for each in kernel.sas if f"spi {doomed} " not in each]
            else:
                ends, direction = line.removeprefix("xfrm policy delete ").split(" dir ")
                kernel.policies = [
                    each
                    for each in kernel.policies
                    if not each.startswith(f"{ends} ") or f"dir {direction} " not in each
                ]
        listed = kernel.policies if "policy" in arguments else kernel.sas
        return Done(arguments, 0, "\n".join(listed))

    kernel.has = has
    stand_in(monkeypatch, run)
    return kernel


@pytest.mark.parametrize(
    ("head", "hers"),
    [(HEAD, HERS), (HOSTS, BETWEEN_HOSTS), (GATEWAY, AT_GATEWAY), (GATE, BETWEEN_HOSTS)],
)
def test_without_a_daemon_a_tunnel_goes_out_of_the_kernel_and_no_other(left, head, hers):
    left.has(*ANOTHER)
    others = [*left.sas, *left.policies]
    left.has(*hers)
    assert leftovers.take_out(head)
    assert [*left.sas, *left.policies] == others


def test_a_new_daemon_takes_out_what_a_killed_one_left_of_a_tunnel_at_target(
    left, monkeypatch, tmp_path
):
    """Its successor has not flushed them, and knows nothing of it."""
    left.has(*ANOTHER)
    others = list(left.policies)
    left.has(*AT_GATEWAY)
    monkeypatch.setattr(Tools, "whack", lambda *_: "")
    monkeypatch.setattr(libreswan, "listener", lambda _: 0)
    (tmp_path / "carnet").mkdir()
    (tmp_path / "carnet" / "carnet-7.conf").write_text(conf.head_line(GATEWAY))
    libreswan.Libreswan(tmp_path / "pluto.ctl").down("carnet-7")
    assert left.policies == others


def test_sas_that_lost_their_policies_go_by_their_peer(left):
    left.has(*ANOTHER)
    others = list(left.sas)
    left.has(*BETWEEN_HOSTS)
    left.policies = left.policies[:3]
    assert leftovers.take_out(HOSTS)
    assert left.sas == others


def test_what_the_kernel_keeps_is_not_said_to_be_gone(left):
    left.has(*HERS)
    left.keeps = True
    assert not leftovers.take_out(HEAD)


def test_where_no_file_tells_whose_they_are_any_may_be_hers(left):
    assert leftovers.take_out(None)
    left.has(*HERS)
    assert not leftovers.take_out(None)


@pytest.mark.parametrize(
    ("keeps", "kind"), [(False, NothingLeftError), (True, TunnelLeftError)], ids=str
)
def test_the_end_of_a_tunnel_without_a_daemon_says_what_became_of_it(
    left, monkeypatch, tmp_path, keeps, kind
):
    """Its routes go before its policies do: nothing is led past them."""
    removed = []
    monkeypatch.setattr(
        inner_address, "remove", lambda *given: removed.append((*given, len(left.policies)))
    )
    driver = libreswan.Libreswan(tmp_path / "pluto.ctl")
    (tmp_path / "carnet").mkdir()
    for name in ("carnet-7", "carnet-8"):
        facts = json.dumps(asdict(HEAD))
        (tmp_path / "carnet" / f"{name}.conf").write_text(f"# carnet {facts}\nconn {name}\n")
        (tmp_path / "carnet" / f"{name}.interfaces").write_text(f"{name}0")
    left.has(*HERS)
    left.keeps = keeps
    with pytest.raises(kind, match="does not answer"):
        driver.down("carnet-7")
    (others,) = [given[1] for given in removed]
    assert removed == [(HEAD.virtual_address, others, ["carnet-70"], 3)]
    assert [each.inner for each in others] == [{HEAD.virtual_address}]


def test_a_target_s_tunnel_goes_out_of_the_kernel_without_a_daemon_too(left, monkeypatch, tmp_path):
    """And no address with it: that inside is the peer's."""
    monkeypatch.setattr(inner_address, "remove", lambda *_: pytest.fail("it is another machine's"))
    (tmp_path / "carnet").mkdir()
    facts = json.dumps(asdict(GATEWAY))
    (tmp_path / "carnet" / "carnet-7.conf").write_text(f"# carnet {facts}\nconn carnet-7\n")
    left.has(*AT_GATEWAY)
    with pytest.raises(NothingLeftError, match="does not answer"):
        libreswan.Libreswan(tmp_path / "pluto.ctl").down("carnet-7")
    assert (left.sas, left.policies) == ([], [])


@pytest.mark.parametrize("left_of_it", [None, b"", b'# carnet {"role": "client", }\n', b"\xff{"])
def test_of_a_damaged_file_the_session_s_record_takes_the_place(
    left, monkeypatch, tmp_path, left_of_it
):
    removed = []
    monkeypatch.setattr(inner_address, "remove", lambda *given: removed.append(given[0]))
    (tmp_path / "carnet").mkdir()
    if left_of_it is not None:
        (tmp_path / "carnet" / "carnet-7.conf").write_bytes(left_of_it)
    session = a_session(
        name="carnet-7",
        virtual_address=HEAD.virtual_address,
        networks=HEAD.networks,
        target_addresses=HEAD.targets,
    )
    records, driver = SessionStore(tmp_path), libreswan.Libreswan(tmp_path / "pluto.ctl")
    records.keep(session)
    left.has(*HERS)
    with pytest.raises(NothingLeftError, match="does not answer"):
        closing.end_session(driver, records, session.name)
    assert removed == [HEAD.virtual_address]
    assert (left.sas, left.policies) == ([], [])
