"""The vectors: each is read as the agents would read it, and must come out as it says.

Two kinds of fault are judged behind the wire. An unknown key is one that the Key
Database does not have: the message must parse, and its key_id be none of those known.
Policy is Target's: the request must open, and the access control list refuse it.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from carnet.ending import verify_ending
from carnet.ipsec.driver import Capabilities
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from carnet.wire import cbor, cose, split
from carnet.wire.control import MAX_CONTROL, EndedTunnels, TunnelAnswer, TunnelRequest
from carnet.wire.documents import Batch, Cover, verify_document
from carnet.wire.envelope import (
    Envelope,
    open_request,
    open_response,
    parse_envelope,
    seal_request,
    verify_evidence,
)
from carnet.wire.fault import Fault, WireError
from carnet.wire.keys import key_id_of, load_public_key
from carnet.wire.messages import RefusalCode, Request
from carnet.wire.session_key import EphemeralKey, SessionBinding
from carnet.wire.suites import P256, P384, RSA, SUITES, find_suite
from target_agent.access import AccessDeniedError, AccessEntry, Carriage, Member, authorize
from tests.unit.examples import SoftwareKey
from tests.vectors import protocol
from tests.vectors.cases import split as cases_of_split
from tests.vectors.cases.suites import PAIRS
from tests.vectors.generate import write

HERE = Path(__file__).parent.parent / "vectors"
FILES = sorted(HERE.glob("*/*.json"))


EC_BY_LENGTH = {32: P256, 48: P384}


@cache
def rsa_key(private):
    """Read a key that many vectors have in common: to try it for validity takes longest here."""
    return load_der_private_key(private, None)


def key_of(inputs):
    """The private key of a vector: a scalar on a curve, or PKCS #8."""
    private = inputs["private_key"]
    suite = EC_BY_LENGTH.get(len(private), RSA)
    if suite is RSA:
        return SoftwareKey(RSA, rsa_key(private))
    return SoftwareKey(suite, ec.derive_private_key(int.from_bytes(private, "big"), suite.curve))


def suite_of(inputs):
    return find_suite(inputs.get("suite", 1))


def run_open_request(inputs):
    envelope = parse_envelope(inputs["message"])
    signed = open_request(envelope, inputs["public_key"], key_of(inputs))
    parts = [1, envelope.suite.number, envelope.key_id, envelope.sealed]
    assert cbor.encode(parts) == inputs["message"]
    assert envelope.digest == hashlib.sha256(inputs["message"]).digest()
    return {"payload": cbor.pack(signed.request)}


def run_open_response(inputs):
    key_id = key_id_of(inputs["public_key"])
    request = Envelope(suite_of(inputs), key_id, b"", inputs["request_digest"])
    response = open_response(inputs["message"], request, inputs["public_key"], key_of(inputs))
    return {"payload": cbor.pack(response)}


def run_open_split_request(inputs):
    host = key_of({"private_key": inputs["host_private_key"]})
    envelope = parse_envelope(inputs["message"])
    signed = split.open_request(envelope, inputs["public_key"], inputs["host_key"], host.agree)
    return {"payload": cbor.pack(signed.request)}


def run_open_split_response(inputs):
    key_id = key_id_of(inputs["public_key"])
    request = Envelope(suite_of(inputs), key_id, b"", inputs["request_digest"])
    ephemeral = EphemeralKey(inputs["ephemeral_secret"])
    response = split.open_response(inputs["message"], request, inputs["host_key"], ephemeral)
    return {"payload": cbor.pack(response)}


def run_verify_evidence(inputs):
    custody = inputs.get("custody", "paired")
    signed = verify_evidence(inputs["evidence"], inputs["public_key"], suite_of(inputs), custody)
    assert signed.evidence == inputs["evidence"]
    return {"payload": cbor.pack(signed.request)}


def run_verify_document(type_):
    def run(inputs):
        officer = load_public_key(inputs["officer_key"], P256)
        return {"payload": cbor.pack(verify_document(inputs["signed"], type_, officer))}

    return run


def run_verify_ending(inputs):
    ending = verify_ending(
        inputs["message"], inputs["request_id"], inputs["target"], inputs["officer_key"]
    )
    return {"payload": cbor.pack(ending)}


def run_read(type_):
    def run(inputs):
        return {"payload": cbor.pack(cbor.unpack(inputs["message"], type_, MAX_CONTROL))}

    return run


def run_read_answer(inputs):
    answer = cbor.unpack_union(inputs["message"], TunnelAnswer, MAX_CONTROL)
    return {"payload": cbor.pack(answer)}


def run_open_session_key(inputs):
    key = EphemeralKey(inputs["ephemeral_secret"])
    secrets = key.open(inputs["sealed"], SessionBinding(**inputs["binding"]))
    return {
        "psk": secrets.psk,
        "ppk": secrets.ppk,
        "ah_psk": secrets.ah_psk,
        "ah_ppk": secrets.ah_ppk,
    }


def run_look_up(inputs):
    known = {key_id_of(key) for key in inputs["known_keys"]}
    found = parse_envelope(inputs["message"]).key_id in known
    return {} if found else {"fault": "unknown key"}


def run_authorize(inputs):
    envelope = parse_envelope(inputs["message"])
    request = open_request(envelope, inputs["public_key"], key_of(inputs)).request
    capabilities = Capabilities(
        driver="vectors",
        version="0",
        ike_versions=(2,),
        objectives=tuple(Objective),
        modes=tuple(Mode),
        ppk=True,
    )
    carriage = Carriage(
        target=inputs["target"],
        addresses=("198.51.100.2",),
        ip_versions=frozenset({4, 6}),
        capabilities=capabilities,
        guards_itself=True,
        require_ppk=False,
    )
    try:
        authorize(request, member_of(inputs["member"]), carriage)
    except AccessDeniedError as error:
        return {"fault": "policy", "code": error.code}
    return {}


def member_of(facts):
    if facts is None:
        return None
    entries = tuple(
        AccessEntry(Objective(e["objective"]), e["network"], e["lifetime"])
        for e in facts["entries"]
    )
    return Member(facts["user_id"], 0, entries)


RUN = {
    "open request": run_open_request,
    "open response": run_open_response,
    "open split request": run_open_split_request,
    "open split response": run_open_split_response,
    "verify evidence": run_verify_evidence,
    "verify cover": run_verify_document(Cover),
    "verify batch": run_verify_document(Batch),
    "verify ending": run_verify_ending,
    "read tunnel request": run_read(TunnelRequest),
    "read tunnel answer": run_read_answer,
    "read ended tunnels": run_read(EndedTunnels),
    "open session key": run_open_session_key,
    "look up": run_look_up,
    "authorize": run_authorize,
}
BYTES = {
    "public_key", "private_key", "officer_key", "message", "signed", "evidence", "sealed",
    "request_digest", "ephemeral_secret", "host_key", "host_private_key", "request_id",
    "known_keys", "payload", "psk", "ppk",
    "ah_psk", "ah_ppk",
}  # fmt: skip


def read_value(name, value):
    if isinstance(value, dict):
        return {key: read_value(key, item) for key, item in value.items()}
    if name == "known_keys":
        return [read_value("public_key", item) for item in value]
    if name in BYTES:
        return bytes.fromhex("".join(value))
    return value


def read(path):
    return {name: read_value(name, value) for name, value in json.loads(path.read_text()).items()}


def outcome_of(vector):
    try:
        return RUN[vector["operation"]](vector["inputs"])
    except WireError as error:
        return {"fault": error.fault}


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: path.relative_to(HERE).with_suffix("").as_posix()
)
def test_vector(path):
    vector = read(path)
    assert outcome_of(vector) == vector["expect"]
    assert ("fault" in vector["expect"]) == (path.parent.name == "bad")


def test_the_generator_writes_these_very_files(tmp_path):
    write(tmp_path)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert written == {path.relative_to(HERE): path.read_bytes() for path in FILES}


def test_the_generator_knows_nothing_of_the_product():
    """No module of it imports carnet or an agent."""
    for path in HERE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if "carnet" in name or "_agent" in name], path


def test_there_are_vectors_for_every_kind_of_fault_and_every_refusal():
    vectors = [read(path) for path in FILES]
    assert len(vectors) >= 150
    assert {v["expect"]["fault"] for v in vectors if "fault" in v["expect"]} == set(Fault)
    refusals = {path.stem.removeprefix("response-refusal-") for path in FILES}
    assert set(RefusalCode) <= refusals


def test_every_suite_has_good_vectors_of_every_kind():
    for number in set(SUITES) - {1}:
        good = {path.stem for path in FILES if path.stem.startswith(f"suite-{number}-")}
        for kind in ("request", "response-grant", "response-refusal", "evidence"):
            assert f"suite-{number}-{kind}" in good


@pytest.mark.parametrize("name", cases_of_split.PAIRS)
def test_what_the_product_seals_in_custody_split_the_second_implementation_opens(name):
    pair = cases_of_split.PAIRS[name]
    key, host = key_of({"private_key": pair.private_bytes}), cases_of_split.sealing(pair)
    payload = read(HERE / "good" / "request-defaults.json")["expect"]["payload"]
    request, suite = cbor.unpack(payload, Request), find_suite(pair.suite)
    sealed = split.seal_request(request, key.public_key, suite, key.sign, host.spki)
    version, number, key_id, inside = cbor.decode(sealed.data)
    assert (version, number, key_id) == (1, pair.suite, pair.key_id)
    signed = protocol.open_sealed(inside, host, cases_of_split.info(pair))
    assert (signed, cose.payload_of(signed)) == (sealed.evidence, payload)


@pytest.mark.parametrize("pair", [protocol.Pair("alice's pair"), *PAIRS.values()])
def test_what_the_product_seals_the_second_implementation_opens(pair):
    key = key_of({"private_key": pair.private_bytes})
    payload = read(HERE / "good" / "request-defaults.json")["expect"]["payload"]
    request, suite = cbor.unpack(payload, Request), find_suite(pair.suite)
    message = seal_request(request, key.public_key, suite, key)
    version, number, key_id, sealed = cbor.decode(message)
    assert (version, number, key_id) == (1, pair.suite, pair.key_id)
    signed = protocol.open_sealed(sealed, pair, protocol.info_of(pair.key_id, suite=pair.suite))
    assert cose.payload_of(signed) == payload
