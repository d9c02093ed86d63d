"""Messages and documents as plain values, each right as it stands."""

from typing import Any

from tests.vectors.protocol import Pair, derived, ephemeral_public

REQUEST_ID = derived("request id", 16)
SESSION_KEY = derived("sealed session key of no meaning", 1168)


def changed(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    """Return a copy with the item at a dotted path replaced."""
    name, _, rest = path.partition(".")
    return value | {name: changed(value[name], rest, new) if rest else new}


def without(value: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a copy without the item at a dotted path."""
    name, _, rest = path.partition(".")
    if rest:
        return value | {name: without(value[name], rest)}
    return {key: item for key, item in value.items() if key != name}


def driver() -> dict[str, Any]:
    """Return one IPsec implementation of the Client."""
    return {
        "name": "strongswan",
        "ike_versions": [2],
        "objectives": [3],
        "modes": ["tunnel"],
        "ppk": True,
    }


def request() -> dict[str, Any]:
    """Return a request."""
    return {
        "request_id": REQUEST_ID,
        "user_id": "alice@office",
        "objective_id": 3,
        "request_info": {
            "target": "work",
            "networks": ["10.20.0.0/16"],
            "lifetime": 3600,
            "drivers": [driver()],
            "nat": False,
            "ephemeral_key": ephemeral_public(),
        },
    }


def tunneling_info() -> dict[str, Any]:
    """Return what a Client needs for its side of the tunnel."""
    return {
        "target_addresses": ["198.51.100.2"],
        "client_identity": "client-00.carnet",
        "target_identity": "target-00.carnet",
        "objective_id": 3,
        "mode": "tunnel",
        "ike_version": 2,
        "ike_proposals": ["aes256gcm16-prfsha256-x25519"],
        "esp_proposals": ["aes256gcm16-x25519"],
        "ah_proposals": [],
        "ppk_id": "ppk-00.carnet",
        "networks": ["10.20.0.0/16"],
        "virtual_address": "10.99.0.1",
        "dns": ["10.20.0.53"],
        "mtu": 1400,
        "force_udp": False,
        "initiate_within": 120,
        "expires": 2_000_000_000,
    }


def tunnel_grant() -> dict[str, Any]:
    """Return Target's yes to Host."""
    return {
        "outcome": "granted",
        "request_id": REQUEST_ID,
        "session_key": SESSION_KEY,
        "tunneling_info": tunneling_info(),
    }


def tunnel_refusal(code: str = "network-not-allowed") -> dict[str, Any]:
    """Return Target's no to Host."""
    return {
        "outcome": "refused",
        "request_id": REQUEST_ID,
        "code": code,
        "reason": "Ask the operator of work.",
    }


def grant() -> dict[str, Any]:
    """Return Host's yes to the Client."""
    return tunnel_grant() | {"invalid_pairs": []}


def refusal(code: str = "network-not-allowed") -> dict[str, Any]:
    """Return Host's no to the Client."""
    return tunnel_refusal(code) | {"invalid_pairs": []}


def cover() -> dict[str, Any]:
    """Return a booklet's cover."""
    return {
        "version": 1,
        "user_id": "alice@office",
        "token_serial": "0123456789abcdef",
        "hosts": ["https://host.example:4711"],
        "targets": ["work"],
        "custody": "paired",
        "suite": 1,
        "host_keys": [],
        "issued_at": 1_800_000_000,
        "not_after": 1_900_000_000,
    }


def batch() -> dict[str, Any]:
    """Return a batch of one pair in paired custody."""
    return {
        "version": 1,
        "batch_id": derived("batch id", 16),
        "host_transport_key": Pair("host transport").spki,
        "ephemeral_key": Pair("traveller transport").spki,
        "user_id": "alice@office",
        "token_serial": "0123456789abcdef",
        "custody": "paired",
        "suite": 1,
        "minted_at": 1_800_000_000,
        "not_after": None,
        "pairs": [batch_pair()],
    }


def batch_pair() -> dict[str, Any]:
    """Return one pair of a batch."""
    return {
        "label": "carnet 20261123T101500Z 0001",
        "public_key": Pair("minted").spki,
        "wrapped": derived("wrapped", 80),
    }


def ending() -> dict[str, Any]:
    """Return what Target tells the traveller of the end of a tunnel."""
    return {
        "version": 1,
        "request_id": REQUEST_ID,
        "reason": "revoked",
        "ended_at": 1_900_000_000,
    }


def tunnel_ended() -> dict[str, Any]:
    """Return the end of one tunnel."""
    return {
        "number": 1,
        "request_id": REQUEST_ID,
        "reason": "expired",
        "ended_at": 1_900_000_000,
    }
