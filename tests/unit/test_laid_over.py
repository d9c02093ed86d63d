"""What a tunnel of ours has laid over /etc/resolv.conf is not the machine's own."""

import os
import tempfile
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from carnet.ipsec import surroundings
from carnet.ipsec.inside import resolv_conf

THE_TUNNEL_S, THE_MACHINE_S = "10.20.0.10", ("10.255.255.53", "fd00::53")
NAME, OTHER = (f"carnet-{each * 32}" for each in "ab")
UNREADABLE = "# Of the tunnel work, by carnet; `carnet disconnect` takes it away.\n"
"""As by a version that did not write down what there was before."""


def numbers(*texts):
    return frozenset(map(ip_address, texts))


@contextmanager
def laid_over(text):
    """What a bind mount shows of a file that has no name any more."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        descriptor = os.open(file.name, os.O_RDONLY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@pytest.fixture
def over(before, tmp_path):
    """The way in which they are laid over the machine's own, and what is laid over it."""
    kept = tmp_path / "a b"
    kept.mkdir()
    way = resolv_conf.ResolvConf(kept)
    yield way
    while (name := way.whose()) is not None:
        assert way.restore(name)


@pytest.fixture
def before(tmp_path, monkeypatch):
    """What the machine has of its own."""
    path = tmp_path / "resolv.conf"
    lines = ("# by a DHCP client", "search example", *(f"nameserver {s}" for s in THE_MACHINE_S))
    path.write_text("\n".join(lines))
    monkeypatch.setattr(surroundings, "RESOLVED_ASKS", tmp_path / "none")
    monkeypatch.setattr(resolv_conf, "RESOLV_CONF", path)
    return path


def name_servers():
    return surroundings.look_around(4).name_servers


def test_the_machine_s_name_servers_are_those_under_the_tunnel_s(before, monkeypatch):
    assert name_servers() == numbers(*THE_MACHINE_S)
    with laid_over(resolv_conf.contents("work", [THE_TUNNEL_S])) as path:
        monkeypatch.setattr(resolv_conf, "RESOLV_CONF", path)
        assert path.read_text().splitlines()[1:] == [f"nameserver {THE_TUNNEL_S}"]
        assert name_servers() == numbers(*THE_MACHINE_S)
        with laid_over(resolv_conf.contents("other", ["10.30.0.10"])) as second:
            monkeypatch.setattr(resolv_conf, "RESOLV_CONF", second)
            assert name_servers() == numbers(*THE_MACHINE_S)


def test_where_there_were_none_none_are_the_machine_s(before, monkeypatch):
    before.write_text("")
    with laid_over(resolv_conf.contents("work", [THE_TUNNEL_S])) as path:
        monkeypatch.setattr(resolv_conf, "RESOLV_CONF", path)
        assert name_servers() == frozenset()


def test_what_only_looks_like_ours_is_the_machine_s(before):
    """A file with a name is none that we mounted, whoever wrote it."""
    before.write_text(resolv_conf.contents("work", [THE_TUNNEL_S]))
    assert name_servers() == numbers(THE_TUNNEL_S)


def test_what_does_not_say_what_there_was_is_the_machine_s(before, monkeypatch):
    with laid_over(f"{UNREADABLE}nameserver {THE_TUNNEL_S}\n") as path:
        monkeypatch.setattr(resolv_conf, "RESOLV_CONF", path)
        assert name_servers() == numbers(THE_TUNNEL_S)


@pytest.mark.parametrize(
    "written", ["nameserver 172.20.0.1\n", "", "# Of the tunnel x, by carnet;"]
)
def test_what_somebody_has_written_into_it_is_taken_away_all_the_same(before, over, written):
    own = before.read_text()
    assert over.use(NAME, [THE_TUNNEL_S]) is None
    assert name_servers() == numbers(*THE_MACHINE_S)
    before.write_text(written)
    assert over.whose() == NAME
    assert not over.restore(OTHER)
    assert over.restore(NAME)
    assert (before.read_text(), over.whose()) == (own, None)


@contextmanager
def mounted(directory, text):
    """A file that is deleted, of any name, mounted over what programs read: as before it had one.

    However it ends, the mount goes.
    """
    with tempfile.NamedTemporaryFile("w", dir=directory) as file:
        file.write(text)
        file.flush()
        assert resolv_conf.run("mount", "--bind", file.name, str(resolv_conf.RESOLV_CONF)) is None
    try:
        yield
    finally:
        resolv_conf.run("umount", "--lazy", str(resolv_conf.RESOLV_CONF))


def test_what_a_version_before_has_laid_over_is_restored(before, over, tmp_path):
    own = before.read_text()
    with mounted(tmp_path, resolv_conf.contents(NAME, [THE_TUNNEL_S])):
        assert over.whose() == NAME
        assert name_servers() == numbers(*THE_MACHINE_S)
        assert not over.restore(OTHER)
        assert over.restore(NAME)
        assert (before.read_text(), over.whose()) == (own, None)


@pytest.mark.parametrize("text", ["nameserver 172.20.0.1\n", "", "# Of the tunnel x, by dhcp;"])
def test_what_another_has_mounted_stays(before, over, tmp_path, text):
    with mounted(tmp_path, text):
        assert (over.whose(), over.restore(NAME), over.restore("x")) == (None, False, False)
        assert before.read_text() == text


def test_what_was_laid_over_is_found_where_programs_are_led_elsewhere_by_now(
    before, over, monkeypatch
):
    led = before.with_name("led")
    led.symlink_to(before)
    monkeypatch.setattr(resolv_conf, "RESOLV_CONF", led)
    assert over.use(NAME, [THE_TUNNEL_S]) is None
    led.unlink()
    led.write_text("nameserver 172.20.0.1")
    assert (over.whose(), over.restore(NAME), over.whose()) == (NAME, True, None)
    assert numbers(*THE_MACHINE_S) == frozenset(resolv_conf.servers_in(before.read_text()))
