"""Messages: one encoding each, and no field out of its bounds."""

import pytest

from carnet.wire import cbor
from carnet.wire.fault import Fault, WireError
from carnet.wire.fields import printable
from carnet.wire.messages import Grant, Refusal, RefusalCode, Request, Response
from carnet.wire.session_key import EphemeralKey, SessionBinding, make_session_key
from tests.unit.examples import EPHEMERAL, make_request, make_tunneling_info

BINDING = SessionBinding(
    request_id=bytes(16), user_id="alice@office", target="work", objective_id=3
)


def changed(message, **changes):
    """The encoding of a message with fields changed, past the message's own checks."""
    value = cbor.decode(cbor.pack(message))
    for name, new in changes.items():
        part = value["request_info"] if name in value.get("request_info", {}) else value
        part[name] = new
    return cbor.encode(value)


def fault_of(call, *arguments):
    with pytest.raises(WireError) as caught:
        call(*arguments)
    return caught.value.fault


def test_a_request_round_trips_to_the_same_bytes():
    data = cbor.pack(make_request())
    assert cbor.unpack(data, Request) == make_request()
    assert cbor.pack(cbor.unpack(data, Request)) == data


@pytest.mark.parametrize(
    "response",
    [
        Grant(
            request_id=bytes(16),
            session_key=bytes(1168),
            tunneling_info=make_tunneling_info(),
            invalid_pairs=(bytes(16),),
        ),
        Refusal(
            request_id=bytes(16), code=RefusalCode.TOO_LATE, reason="Too late.", invalid_pairs=()
        ),
    ],
)
def test_a_response_round_trips_to_the_same_kind(response):
    assert cbor.unpack_union(cbor.pack(response), Response) == response


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": bytes(15)},
        {"request_id": "0123456789abcdef"},
        {"user_id": "alice"},
        {"user_id": "alice@office\n"},
        {"objective_id": 0},
        {"objective_id": 5},
        {"objective_id": 3.0},
        {"objective_id": True},
        {"surplus": 1},
        {"target": "../work"},
        {"networks": ["10.20.0.1/16"]},
        {"networks": ["10.20.000.0/16"]},
        {"networks": ["work"]},
        {"networks": ["10.20.0.0/16"] * 33},
        {"lifetime": 0},
        {"lifetime": -1},
        {"drivers": []},
        {"nat": 1},
        {"ephemeral_key": bytes(1215)},
    ],
)
def test_a_field_out_of_its_bounds_is_refused(changes):
    assert fault_of(cbor.unpack, changed(make_request(), **changes), Request) is Fault.FIELD


def test_a_missing_field_is_refused():
    value = cbor.decode(cbor.pack(make_request()))
    del value["request_info"]["nat"]
    assert fault_of(cbor.unpack, cbor.encode(value), Request) is Fault.FIELD


def test_a_reason_that_would_move_the_cursor_is_refused():
    refusal = Refusal(request_id=bytes(16), code="too-late", reason="x", invalid_pairs=())
    data = changed(refusal, reason="\x1b[2Jgone")
    assert fault_of(cbor.unpack_union, data, Response) is Fault.FIELD
    assert printable("\x1b[2Jgone") == " [2Jgone"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\xa2\x61a\x01\x61a\x02", Fault.FRAMING),
        (b"\xa2\x61b\x01\x61a\x02", Fault.CANONICAL),
        (b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", Fault.CANONICAL),
        (b"\x81" * 20 + b"\x00", Fault.FRAMING),
        (b"\x5a\xff\xff\xff\xff", Fault.FRAMING),
        (b"\x62\xc3\x28", Fault.FRAMING),
    ],
)
def test_cbor_has_one_form(data, fault):
    assert fault_of(cbor.decode, data) is fault


def test_target_and_client_derive_the_same_keys_and_not_one_for_two():
    sealed, ours = make_session_key(EPHEMERAL.public, BINDING)
    theirs = EPHEMERAL.open(sealed, BINDING)
    assert theirs == ours
    assert theirs.psk != theirs.ppk
    assert str(theirs.psk) not in repr(theirs)


@pytest.mark.parametrize(
    "other",
    [
        {"request_id": bytes(15) + b"\x01"},
        {"user_id": "mallory@office"},
        {"target": "home"},
        {"objective_id": 1},
    ],
)
def test_a_session_key_is_good_for_one_request_only(other):
    sealed, _ = make_session_key(EPHEMERAL.public, BINDING)
    fields = {
        "request_id": BINDING.request_id,
        "user_id": BINDING.user_id,
        "target": BINDING.target,
        "objective_id": BINDING.objective_id,
    }
    assert fault_of(EPHEMERAL.open, sealed, SessionBinding(**(fields | other))) is Fault.SEAL


def test_a_session_key_opens_with_its_own_ephemeral_key_only():
    sealed, _ = make_session_key(EPHEMERAL.public, BINDING)
    assert fault_of(EphemeralKey.generate().open, sealed, BINDING) is Fault.SEAL
