"""Which suites a Host serves: requests under others get the one answer, batches are refused whole.

The tokens are real SoftHSM2 tokens, whose OAEP has no other hash than SHA-1.
"""

import asyncio
import secrets
from pathlib import Path

import pytest

from carnet.errors import RefusedError, TokenError, UsageError
from carnet.exchange import host as step
from carnet.exchange.machine import run_async
from carnet.progress import no_bar
from carnet.token import keys
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.rsa_type import OAEP_HASHES
from carnet.token.transport import agree_transport, host_transport_key
from carnet.wire.documents import Batch, BatchPair
from carnet.wire.envelope import parse_envelope, seal_request
from carnet.wire.keys import key_id_of
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1, SuiteName
from host_agent import config as configuration
from host_agent.batch_file import batch_at
from host_agent.exchange import Exchange, Parts
from host_agent.importing import record_batch, wrapped_onto_hsm
from host_agent.leases import Leases
from host_agent.outcome import Rejected
from host_agent.revoked_meanwhile import under_way
from tests.host.batches import MINTED, Officer, SessionToken, host_config, split_batch, write
from tests.host.conftest import new_pair
from tests.unit.examples import ALL_SUITES, SoftwareKey, make_request

OAEP = {"rsa-2048": OAEP_HASHES["sha-1"]}


# Requests


class Untouched:
    """An HSM, or a Target, that nobody may ask."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was asked for")


def outcome_of(database, data, suites):
    async def main():
        parts = Parts(database, Untouched(), Untouched(), Leases(database), None, frozenset(suites))
        exchange = Exchange(parts, parse_envelope(data))
        await run_async(step.machine(), step.Arrived(exchange.envelope), exchange.perform)
        return await exchange.outcome

    return asyncio.run(main())


@pytest.mark.parametrize("suite", ALL_SUITES, ids=lambda suite: suite.name)
def test_a_request_under_a_suite_not_allowed_never_reaches_the_hsm(database, suite):
    key = SoftwareKey(suite)
    database.add_pairs([new_pair(key, suite=suite.number)])
    data = seal_request(make_request(), key.public_key, suite, key)
    others = {each.number for each in ALL_SUITES} - {suite.number}
    assert outcome_of(database, data, others) == Rejected()
    with pytest.raises(AssertionError, match="open_request was asked for"):
        outcome_of(database, data, {suite.number})


def test_a_request_under_another_suite_than_the_pairs_never_reaches_the_hsm(database):
    key = SoftwareKey(RSA)
    database.add_pairs([new_pair(key, suite=RSA.number)])
    data = seal_request(make_request(), key.public_key, RSA_SHA1, key)
    assert outcome_of(database, data, {RSA.number, RSA_SHA1.number}) == Rejected()


# Batches


def minted(pairing, key_type, suite, count=2):
    wrapping = agree_transport(pairing.traveller, host_transport_key(pairing.host))
    made = [
        wrapping.mint_pair(
            pair_label(MINTED, number), None, keys.TYPES[key_type], OAEP.get(key_type)
        )
        for number in range(1, count + 1)
    ]
    return Batch(
        version=1,
        batch_id=secrets.token_bytes(16),
        host_transport_key=host_transport_key(pairing.host),
        ephemeral_key=wrapping.ephemeral_public_key,
        user_id="alice@office",
        token_serial="1",
        custody="paired",
        suite=suite.number,
        minted_at=int(MINTED.timestamp()),
        not_after=None,
        pairs=tuple(
            BatchPair(label=pair_label(MINTED, number), public_key=p.public_key, wrapped=p.wrapped)
            for number, p in enumerate(made, 1)
        ),
    )


def on_hsm(pairing):
    return [pair.key_id for pair in OneTimeKeys(pairing.host).pairs()]


@pytest.fixture
def take_in(pairing, database, tmp_path):
    """Take a batch in as `carnet-host import` does; return the key_ids that the HSM shall hold."""
    officer = Officer(tmp_path)
    config = host_config(tmp_path, suites=tuple(SuiteName))

    def take(batch):
        with (
            batch_at(write(tmp_path / "batch", batch, officer), config) as opened,
            no_bar("", 0) as advance,
            under_way(opened, database),
        ):
            hsm = SessionToken(pairing.host)
            new = list(wrapped_onto_hsm(opened, hsm, database, advance))
            record_batch(opened, database, advance)
        return new

    return take


@pytest.mark.parametrize(
    ("key_type", "suite"), [("ec-p256", P256), ("ec-p384", P384), ("rsa-2048", RSA_SHA1)]
)
def test_a_batch_of_each_suite_is_taken_in(pairing, database, take_in, key_type, suite):
    batch = minted(pairing, key_type, suite)
    key_ids = [key_id_of(pair.public_key) for pair in batch.pairs]
    assert take_in(batch) == key_ids == on_hsm(pairing)
    assert [database.find_pair(key_id).suite for key_id in key_ids] == [suite.number] * 2
    # What is there already is looked at again, and stays as it is.
    assert take_in(batch) == key_ids == on_hsm(pairing)


def test_a_batch_that_the_hsm_cannot_serve_is_refused_whole(pairing, database, take_in):
    """Minted on a token whose OAEP has SHA-256, for an HSM whose OAEP does not."""
    batch = minted(pairing, "rsa-2048", RSA)
    with pytest.raises(RefusedError, match=r"HSM cannot serve the batch.*OAEP with sha256"):
        take_in(batch)
    assert on_hsm(pairing) == []
    assert [database.find_pair(key_id_of(p.public_key)) for p in batch.pairs] == [None, None]


@pytest.mark.parametrize("suite", [P256, P384, RSA])
def test_a_batch_that_says_another_suite_than_its_keys_is_refused_whole(
    pairing, take_in, suite
):  # fmt: skip
    key_type = "ec-p384" if suite is P256 else "ec-p256"
    with pytest.raises(RefusedError, match="cannot be used here"):
        take_in(minted(pairing, key_type, suite))
    assert on_hsm(pairing) == []


def test_a_batch_with_a_first_pair_that_does_not_unwrap_changes_nothing(
    pairing, take_in
):  # fmt: skip
    good = minted(pairing, "ec-p384", P384)
    spoilt = BatchPair(
        label=good.pairs[0].label, public_key=good.pairs[0].public_key, wrapped=bytes(120)
    )
    batch = Batch(
        **{name: getattr(good, name) for name in good.__struct_fields__}
        | {"pairs": (spoilt, good.pairs[1])}
    )
    with pytest.raises(TokenError, match="does not unwrap"):
        take_in(batch)
    assert on_hsm(pairing) == []


@pytest.mark.parametrize(
    ("suite", "named"), [(P384.number, "p-384"), (RSA_SHA1.number, "rsa-sha1"), (77, "77")]
)
def test_a_batch_of_a_suite_not_allowed_is_refused_with_the_reason(tmp_path, suite, named):
    path = write(tmp_path / "batch", split_batch(1, suite=suite), Officer(tmp_path))
    config = host_config(tmp_path, suites=(SuiteName.P256,))
    with (
        pytest.raises(RefusedError, match=f"of suite {named}, which is not among the `suites`"),
        batch_at(path, config),
    ):
        pass


# The setting


def loaded(tmp_path, text):
    path = tmp_path / "host.toml"
    path.write_text(text)
    return configuration.load(path)


def test_the_file_that_init_writes_allows_every_suite(tmp_path):
    text = configuration.render("office", [("work", "https://target.example:8471")])
    assert loaded(tmp_path, text).suites == tuple(SuiteName)
    without = "\n".join(line for line in text.splitlines() if not line.startswith("suites"))
    assert loaded(tmp_path, without).suites == tuple(SuiteName)


@pytest.mark.parametrize("value", ['["p-512"]', "[]", "[1]", '"rsa"', '["rsa", "p-256", "rsa"]'])
def test_suites_that_cannot_be_meant_are_refused_with_their_line(tmp_path: Path, value):
    text = configuration.render("office", [("work", "https://target.example:8471")])
    line = next(line for line in text.splitlines() if line.startswith("suites"))
    number = text.splitlines().index(line) + 1
    with pytest.raises(UsageError, match=f"line {number}"):
        loaded(tmp_path, text.replace(line, f"suites = {value}"))
