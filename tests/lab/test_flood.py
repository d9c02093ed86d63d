"""A flood of valid-looking key_ids, from many addresses, while a traveller wants her tunnel."""

import json

import pytest

from lab.http_client import request
from lab.office import HOST_PORT, HOST_URL
from tests.lab.offices import FILE, FILE_URL, office_at_work

ADDRESSES = [f"10.66.0.{number}" for number in range(1, 17)]
MANY = 60_000
SECONDS = 90
HEAD = b"\x84\x01\x01\x50"
POINT = bytes.fromhex(
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
"""A point of P-256, as good as any: its generator."""


@pytest.fixture(scope="module")
def office(lane):
    with office_at_work(lane, pairs=12, watched=False) as made:
        router = made.world.router
        for address in ADDRESSES:
            router.run(["ip", "address", "add", f"{address}/32", "dev", "lo"])
        yield made


@pytest.fixture(autouse=True)
def disconnected(office):
    yield
    office.carnet("disconnect")


def serve_with(office, **limits):
    """Have the Host start again with these limits."""
    office.host_agent.stop()
    path = office.world.host.directory / "etc" / "host.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith(tuple(limits))]
    place = lines.index("[limits]") + 1
    lines[place:place] = [f'{name} = "{value}"' for name, value in limits.items()]
    path.write_text("\n".join(lines) + "\n")
    office.host_agent = office.serve_host()
    # Its log goes on from the one before, and has said "ready" there.
    office.world.host.wait_for_port(HOST_PORT)


def bad_seals(office):
    """Return a request under every valid pair that shows no fault, and does not open."""
    valid = [pair["key_id"] for pair in office.pairs() if pair["state"] == "valid"]
    return [HEAD + bytes.fromhex(key_id) + b"\x58\x81" + POINT + bytes(64) for key_id in valid]


def start_flood(office, count, *addresses):
    """Start a flood from the router; it ends by itself."""
    router = office.world.router
    bodies = router.directory / "bodies.txt"
    bodies.write_text("\n".join(body.hex() for body in bad_seals(office)))
    argv = ["python", "-m", "tests.lab.flooder", HOST_URL, str(count), str(SECONDS), *addresses]
    with bodies.open() as file:
        return router.start(argv, log=f"flood-{count}.log", stdin=file)


def test_a_client_gets_through_while_a_flood_lasts(office):
    serve_with(office, per_address="20/10 second", hsm="20/second")
    before = office.valid_pairs()
    flood = start_flood(office, MANY, *ADDRESSES)
    flood.wait_for_line("over the limit")
    done = office.carnet("connect")
    still_flooding = flood.running
    flood.stop()
    assert done.returncode == 0, done.stderr
    assert still_flooding, flood.output()
    assert request(office.world.client, "GET", FILE_URL).body == FILE
    assert office.valid_pairs() == before - 1


def test_a_flood_is_put_off_and_told_nothing(office):
    serve_with(office, per_address="5/10 second", hsm="20/second")
    flood = start_flood(office, 200, ADDRESSES[0])
    flood.wait_for_line("^{", SECONDS)
    statuses = json.loads(flood.output().splitlines()[-1])
    assert set(statuses) == {"403", "429"}
    assert statuses["429"] > statuses["403"]


def test_a_client_that_is_put_off_waits_and_succeeds(office):
    """The limit is used up for longer than the test lasts; a Host started again has it anew."""
    serve_with(office, hsm="1/1000 hour")
    (heard, *_) = bad_seals(office)
    assert request(office.world.router, "POST", f"{HOST_URL}/v1/requests", heard).status == 403
    spent = len(office.spent_pairs())
    connecting = office.start_connect()
    connecting.wait_for_line("has too much to do.*trying again")
    assert len(office.spent_pairs()) == spent
    serve_with(office, hsm="20/second")
    assert connecting.wait(60) == 0, connecting.output()
    assert len(office.spent_pairs()) == spent + 1
