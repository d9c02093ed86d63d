"""Where observers come in, as a configuration file says it."""

from pathlib import Path

import pytest

from carnet.observation import Place

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


@pytest.mark.parametrize("text", ["", "9470", "127.0.0.1", "host:9470", "127.0.0.1:70000", "::1:9"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011  what it says differs
        Place.from_setting(text, BASE)
