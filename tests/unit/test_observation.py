"""Where observers come in, as a configuration file says it."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from carnet.config import parse_config
from carnet.observation import ObservationSection, Place
from host_agent import metrics

BASE = Path("/etc/carnet")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:9470", Place(address="127.0.0.1", port=9470)),
        ("[::1]:9470", Place(address="::1", port=9470)),
        ("/run/carnet/seen.sock", Place(path=Path("/run/carnet/seen.sock"))),
        ("./seen.sock", Place(path=BASE / "seen.sock")),
        ("off", Place()),
    ],
)
def test_a_place_is_a_socket_an_address_or_nowhere(text, place):
    assert Place.from_setting(text, BASE) == place


@pytest.mark.parametrize("text", ["127.0.0.1:9470", "./seen.sock", "off"])
def test_a_configuration_file_names_the_place(text):
    file = BASE / "host.toml"
    section, again = (parse_config(file, f'listen = "{text}"', ObservationSection) for _ in "12")
    assert section.place(Place(path=BASE)) == Place.from_setting(text, BASE)
    assert section == again
    assert parse_config(file, "", ObservationSection).place(Place(path=BASE)) == Place(path=BASE)


@pytest.mark.parametrize("text", ["", "9470", "127.0.0.1", "host:9470", "127.0.0.1:70000", "::1:9"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011  what it says differs
        Place.from_setting(text, BASE)


def test_what_a_silent_database_does_not_tell_keeps_no_metrics_back(monkeypatch):
    """Nor is it asked again before it has answered: its threads are few."""
    monkeypatch.setattr(metrics, "ANSWER_SECONDS", 0)
    monkeypatch.setattr(metrics, "COUNT_SECONDS", 0)
    begun, answers, asked = threading.Event(), threading.Event(), []

    def pairs_left():
        asked.append(None)
        begun.set()
        assert answers.wait(20)
        return {"alice@office": 7}

    def shown(host):
        return host.registry.get_sample_value("carnet_host_pairs_left", {"user": "alice@office"})

    async def scrape():
        host = metrics.HostMetrics()
        database = SimpleNamespace(pairs_left=pairs_left)
        host.show_host(database, SimpleNamespace(state=None, waiting=0), lambda: 0)
        async with asyncio.timeout(10):
            try:
                await asyncio.gather(host.refresh(), host.refresh())
                assert shown(host) is None
                assert await asyncio.to_thread(begun.wait, 10)
            finally:
                answers.set()
            monkeypatch.setattr(metrics, "ANSWER_SECONDS", 10)
            await asyncio.gather(host.refresh(), host.refresh())
        assert (shown(host), len(asked)) == (7, 1)

    asyncio.run(scrape())
