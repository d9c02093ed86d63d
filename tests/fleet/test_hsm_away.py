"""The HSM goes away under a Host, and comes back; whatever the database, nothing is spent."""

from pathlib import Path

from host_agent.keydb import KeyDatabase
from tests.fleet.traveller import open_grant, seal, send_one, send_until_answered


def test_an_hsm_that_is_away_spends_nothing_and_serves_when_it_is_back(fleet, keys, token):
    first, _ = keys(2)
    (process,) = fleet.start(1)
    place = Path(token.configuration).parent / "tokens"
    away = place.rename(place.with_name("away"))
    place.mkdir()
    request = seal(first)
    reply = send_one(process.url, request)
    assert (reply.status, reply.reason) == (503, "host-not-ready")
    with KeyDatabase.opened(fleet.place) as database:
        assert [(each.state, each.pairs) for each in database.count(None, None)] == [("valid", 2)]
    place.rmdir()
    away.rename(place)
    assert open_grant(first, request, send_until_answered([process.url], request))
