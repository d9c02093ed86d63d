"""What fuzzing begins with: the vectors, each under the decoders that it is meant for."""

import json
from pathlib import Path

VECTORS = Path(__file__).parent.parent / "vectors"

SOURCES = {
    "sealed_message": [("open request", "inputs", "message"), ("look up", "inputs", "message")],
    "sealed_response": [("open response", "inputs", "message")],
    "request": [("open request", "expect", "payload")],
    "response": [("open response", "expect", "payload")],
    "tunnel_request": [("read tunnel request", "inputs", "message")],
    "tunnel_answer": [("read tunnel answer", "inputs", "message")],
    "ended_tunnels": [("read ended tunnels", "inputs", "message")],
    "proved_ending": [("verify ending", "inputs", "message")],
    "ending": [("verify ending", "inputs", "message")],
    "ending_payload": [("verify ending", "expect", "payload")],
    "cose_sign1": [("verify evidence", "inputs", "evidence"), ("verify cover", "inputs", "signed")],
    "evidence": [("verify evidence", "inputs", "evidence")],
    "cover": [("verify cover", "inputs", "signed")],
    "unverified_cover": [("verify cover", "inputs", "signed")],
    "cover_payload": [("verify cover", "expect", "payload")],
    "batch": [("verify batch", "inputs", "signed")],
    "batch_payload": [("verify batch", "expect", "payload")],
    "public_key": [("open request", "inputs", "public_key")],
    "token_public_key": [("open request", "inputs", "public_key")],
    "session_key": [("open session key", "inputs", "sealed")],
}
"""Operation, part and name in the vector, by decoder."""


def seeds(name):
    """Return the vectors' bytes for a decoder, in an order that does not change."""
    found = set()
    for path in sorted(VECTORS.glob("*/*.json")):
        vector = json.loads(path.read_text())
        for operation, part, key in SOURCES.get(name, ()):
            if vector["operation"] == operation and key in vector[part]:
                found.add(bytes.fromhex("".join(vector[part][key])))
    return sorted(found)
