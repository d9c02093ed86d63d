"""Key store `wrapped`: a request asks as much of the HSM with 2,000 pairs as with 20.

OpenSC's pkcs11-spy stands between a real Host and SoftHSM2, and writes down each call.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from carnet.token.finding import MODULE_VARIABLE, find_module
from host_agent.keydb import KeyDatabase
from lab.readers import OPENSC
from lab.waiting import wait_until
from tests.fleet.conftest import how_many
from tests.host.filled import filled_host, post
from tests.host.real_host import sealed, status_of

SPY = Path(OPENSC).with_name("pkcs11-spy.so")
TRAVELLERS, EACH = 40, 50
REQUESTS = 4
_CALL = re.compile(rb"^\d+: (C_\w+)$", re.MULTILINE)
_LOOKS = {b"C_GetSlotInfo", b"C_GetTokenInfo", b"C_GetSessionInfo"}
"""What the Host asks every few seconds, to see whether the HSM is there."""


def calls_of_a_request(directory, travellers, each, place=None):
    """Which calls each request makes, the burn of its pair included."""
    log = directory.with_suffix(".spy")
    spied = {
        MODULE_VARIABLE: str(SPY),
        "PKCS11SPY": str(find_module(None)),
        "PKCS11SPY_OUTPUT": str(log),
    }
    counted = []
    with (
        filled_host(directory, travellers, each, REQUESTS, place, **spied) as (port, keys, _),
        KeyDatabase.opened(place or directory / "keys.sqlite") as database,
    ):
        for number, key in enumerate(keys, 1):
            before = log.stat().st_size
            assert status_of(post(port, sealed(key, user_id="nobody@office"))) == 200
            wait_until(lambda n=number: burned(database) == n, "the burn", 60)
            calls = Counter(_CALL.findall(log.read_bytes()[before:]))
            counted.append({name: n for name, n in calls.items() if name not in _LOOKS})
    return counted


def burned(database):
    with database.begin() as connection:
        query = "SELECT count(*) FROM key_pairs WHERE key_destroyed_at IS NOT NULL"
        return connection.exec_driver_sql(query).scalar()


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_request_makes_the_same_calls_with_few_pairs_with_many_and_on_a_server(tmp_path, place):
    some, all_ = (2, EACH // 5), (how_many(2_000, TRAVELLERS), EACH)
    few = calls_of_a_request(tmp_path / "few", *some)
    many = calls_of_a_request(tmp_path / "many", *all_)
    assert few == calls_of_a_request(tmp_path / "server", *how_many(all_, some), place)
    assert few == many
    first, second, *others = few  # of a batch: its key's type and length are read, and kept
    assert others == [first, second]
    assert first.pop(b"C_GetAttributeValue") - second.pop(b"C_GetAttributeValue") == 2
    assert first == second
    assert first[b"C_UnwrapKey"] == 2  # to open, and to answer
    assert b"C_FindObjects" not in first
