"""Why a tunnel ended: only the word of that Target, on that tunnel, is believed."""

from datetime import timedelta
from time import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.ending import prove_ending, verify_ending
from carnet.wire import cbor
from carnet.wire.documents import (
    DOCUMENT_VERSION,
    AccountsHead,
    Ending,
    ProvedEnding,
    sign_document,
)
from carnet.wire.fault import WireError
from provisioning.authority import Role, agent_certificate, officer_certificate
from target_agent.link_key import LinkKey
from tests.unit.test_host_sender import answering, slept  # noqa: F401  a fixture
from tests.unit.test_sessions import a_session
from token_client import ending as asking

REQUEST = bytes(range(16))
YEAR = timedelta(days=365)


class Officer:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = officer_certificate(self.key, "officer", 2 * YEAR)
        self.public = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def certify(self, name, role=Role.TARGET):
        key = ec.generate_private_key(ec.SECP256R1())
        made = agent_certificate(self.key, self.certificate, key.public_key(), name, role, YEAR)
        return LinkKey(key, made, self.certificate)


@pytest.fixture(scope="module")
def officer():
    return Officer()


@pytest.fixture(scope="module")
def work(officer):
    return officer.certify("work")


def ending(**changes):
    facts = {
        "version": DOCUMENT_VERSION,
        "request_id": REQUEST,
        "reason": "revoked",
        "ended_at": int(time()),
    }
    return Ending(**(facts | changes))


def proved(key, **changes):
    return prove_ending(ending(**changes), key.sign, key.certificate, key.authority)


def test_targets_word_is_believed(officer, work):
    told = verify_ending(proved(work), REQUEST, "work", officer.public)
    assert (told.reason, told.request_id) == ("revoked", REQUEST)


def test_the_word_on_another_tunnel_is_not(officer, work):
    with pytest.raises(WireError, match="another tunnel"):
        verify_ending(proved(work), bytes(16), "work", officer.public)


@pytest.mark.parametrize(
    ("name", "role"),
    [("home", Role.TARGET), ("work", Role.HOST), ("work", Role.INTERFACE)],
    ids=["another Target", "a Host", "a Host's interface"],
)
def test_nobody_else_whom_the_officer_certified_is_believed(officer, name, role):
    with pytest.raises(WireError, match="not certified"):
        verify_ending(proved(officer.certify(name, role)), REQUEST, "work", officer.public)


def test_a_certificate_that_was_over_is_none(officer, work):
    late = int(time()) + 400 * 86400
    with pytest.raises(WireError, match="not certified"):
        verify_ending(proved(work, ended_at=late), REQUEST, "work", officer.public)


def test_another_officer_s_target_is_not_believed(officer):
    stranger = Officer().certify("work")
    with pytest.raises(WireError, match="another than the officer"):
        verify_ending(proved(stranger), REQUEST, "work", officer.public)


def test_a_stranger_who_shows_the_officer_s_certificate_is_not(officer, work):
    stranger = Officer().certify("work")
    shown = prove_ending(ending(), stranger.sign, stranger.certificate, work.authority)
    with pytest.raises(WireError, match="not certified"):
        verify_ending(shown, REQUEST, "work", officer.public)


def test_a_stranger_who_shows_target_s_certificate_is_not(officer, work):
    stranger = Officer().certify("work")
    shown = prove_ending(ending(), stranger.sign, work.certificate, work.authority)
    with pytest.raises(WireError, match="does not hold"):
        verify_ending(shown, REQUEST, "work", officer.public)


def test_what_target_signed_as_something_else_is_no_ending(officer, work):
    head = AccountsHead(version=1, agent="work", number=1, digest=bytes(32), signed_at=0)
    der = serialization.Encoding.DER
    shown = cbor.pack(
        ProvedEnding(
            signed=sign_document(head, work.sign),
            certificate=work.certificate.public_bytes(der),
            authority=work.authority.public_bytes(der),
        )
    )
    with pytest.raises(WireError, match="does not hold"):
        verify_ending(shown, REQUEST, "work", officer.public)


def test_not_a_byte_can_be_changed(officer, work):
    whole = proved(work)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x40
        with pytest.raises(WireError):
            verify_ending(bytes(changed), REQUEST, "work", officer.public)


def not_told(reason):
    return 503, {"Retry-After": "2", "Carnet-Reason": reason}


def why(officer, *answers):
    """Return what the traveller is told, and how often she has asked."""
    with answering(*answers) as (url, sent):
        facts = {"name": f"carnet-{REQUEST.hex()}", "officer_key": officer.public.hex()}
        told = asking.why_ended(a_session(**facts, hosts=(url,)))
    return told and told.sentence, len(sent)


def test_what_somebody_ended_at_this_end_is_not_said_to_be_lost_alone(officer, work):
    """As root does, by whose command the tunnels of all users end: Target cannot tell."""
    told, _ = why(officer, (200, {}, proved(work, reason="peer-closed")))
    assert "ended at this end, as this machine's administrator can do, or" in told


@pytest.mark.usefixtures("slept")
def test_target_that_has_yet_to_bring_the_end_about_is_waited_for(officer, work, monkeypatch):
    """A slow one takes longer for it than anybody is asked who has nothing to say."""
    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0)
    told, asked = why(officer, *[not_told("target-not-ready")] * 10, (200, {}, proved(work)))
    assert "its key pair was revoked" in told
    assert asked == 11
    assert why(officer, not_told("target-unreachable"), (200, {}, proved(work))) == (None, 1)


@pytest.mark.usefixtures("slept")
@pytest.mark.parametrize("reason", ["target-not-ready", "target-unreachable", "tunnel-lives"])
def test_nobody_is_asked_for_ever(officer, reason):
    told, asked = why(officer, *[not_told(reason)] * 100)
    assert told is None
    assert asked < 32
