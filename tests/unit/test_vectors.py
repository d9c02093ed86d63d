"""The vectors: each is read as the agents would read it, and must come out as it says.

Two kinds of fault are judged behind the wire. An unknown key is one that the Key
Database does not have: the message must parse, and its key_id be none of those known.
Policy is Target's: the request must open, and the access control list refuse it.
"""

import ast
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.ipsec.driver import Capabilities
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from carnet.wire import cbor, cose
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
from carnet.wire.keys import encode_public_key, key_id_of, load_public_key
from carnet.wire.messages import RefusalCode, Request
from carnet.wire.session_key import EphemeralKey, SessionBinding
from carnet.wire.suites import P256
from target_agent.access import AccessDeniedError, AccessEntry, Carriage, Member, authorize
from tests.unit.examples import SoftwareKey
from tests.vectors import protocol
from tests.vectors.encoding import encode
from tests.vectors.generate import write

HERE = Path(__file__).parent.parent / "vectors"
FILES = sorted(HERE.glob("*/*.json"))


class VectorKey(SoftwareKey):
    """The private key of a vector."""

    def __init__(self, scalar):
        self.key = ec.derive_private_key(int.from_bytes(scalar, "big"), P256.curve)
        self.public_key = encode_public_key(self.key.public_key())


def key_of(inputs):
    return VectorKey(inputs["private_key"])


def run_open_request(inputs):
    envelope = parse_envelope(inputs["message"])
    signed = open_request(envelope, inputs["public_key"], key_of(inputs))
    parts = [1, envelope.suite.number, envelope.key_id, envelope.sealed]
    assert cbor.encode(parts) == inputs["message"]
    assert envelope.digest == hashlib.sha256(inputs["message"]).digest()
    return {"payload": cbor.pack(signed.request)}


def run_open_response(inputs):
    key_id = key_id_of(inputs["public_key"])
    request = Envelope(P256, key_id, b"", inputs["request_digest"])
    response = open_response(inputs["message"], request, inputs["public_key"], key_of(inputs))
    return {"payload": cbor.pack(response)}


def run_verify_evidence(inputs):
    signed = verify_evidence(inputs["evidence"], inputs["public_key"], P256)
    assert signed.evidence == inputs["evidence"]
    return {"payload": cbor.pack(signed.request)}


def run_verify_document(type_):
    def run(inputs):
        officer = load_public_key(inputs["officer_key"], P256)
        return {"payload": cbor.pack(verify_document(inputs["signed"], type_, officer))}

    return run


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
    return {"psk": secrets.psk, "ppk": secrets.ppk}


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
    carriage = Carriage(target=inputs["target"], capabilities=capabilities, require_ppk=False)
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
    "verify evidence": run_verify_evidence,
    "verify cover": run_verify_document(Cover),
    "verify batch": run_verify_document(Batch),
    "read tunnel request": run_read(TunnelRequest),
    "read tunnel answer": run_read_answer,
    "read ended tunnels": run_read(EndedTunnels),
    "open session key": run_open_session_key,
    "look up": run_look_up,
    "authorize": run_authorize,
}
BYTES = {
    "public_key", "private_key", "officer_key", "message", "signed", "evidence", "sealed",
    "request_digest", "ephemeral_secret", "request_id", "known_keys", "payload", "psk", "ppk",
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


def test_what_the_product_seals_the_second_implementation_opens():
    pair = protocol.Pair("alice's pair")
    key = VectorKey(pair.private_bytes)
    payload = read(HERE / "good" / "request-defaults.json")["expect"]["payload"]
    message = seal_request(cbor.unpack(payload, Request), key.public_key, P256, key)
    prefix = b"\x84\x01\x01" + encode(pair.key_id)
    assert message.startswith(prefix)
    sealed = cbor.decode(message)[3]
    signed = protocol.open_sealed(sealed, pair, protocol.info_of(pair.key_id))
    assert cose.payload_of(signed) == payload
