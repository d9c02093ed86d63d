"""All HTTP interfaces against their descriptions, with whatever schemathesis thinks of."""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from carnet.database.place import FilePlace
from carnet.interface import BATCHES, PAIRS, REVOCATIONS
from tests.fuzz.corpus import seeds
from tests.host.interface import host_with_interface
from tests.hostile.conftest import session_of

DOCS = Path(__file__).parents[2] / "docs"
CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance]
SETTINGS = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def spoiled(data, place, value):
    at = place % len(data)
    return data[:at] + bytes([value]) + data[at + 1 :]


SEEDS = st.sampled_from([s for s in seeds("sealed_message") + seeds("tunnel_request") if s])
BODIES = st.one_of(
    st.binary(max_size=9000),
    SEEDS,
    st.builds(spoiled, SEEDS, st.integers(0, 9999), st.integers(0, 255)),
)
schemathesis.openapi.media_type("application/cbor", BODIES)

host_schema = schemathesis.openapi.from_path(str(DOCS / "openapi-host.yaml"))
officer_schema = schemathesis.openapi.from_path(str(DOCS / "openapi-officer.yaml"))
target_schema = schemathesis.openapi.from_path(str(DOCS / "openapi-target.yaml"))


@pytest.fixture
def host(make_host):
    with make_host() as serving_host:
        yield serving_host


@pytest.fixture(scope="module")
def interface(tmp_path_factory):
    """A Host that serves its officer; `officers` is she, `hosts` a Host that she certified."""
    directory = tmp_path_factory.mktemp("officer")
    place = FilePlace(directory / "keys.sqlite")
    with (
        pytest.MonkeyPatch.context() as patched,
        host_with_interface(directory, place, patched) as made,
    ):
        made.officers = session_of(made.write("own", made.officer.certificate, made.officer.key))
        made.hosts = session_of((made.directory / "host.crt", made.directory / "host.key"))
        made.start()
        yield made


@host_schema.parametrize()
@SETTINGS
def test_the_host_answers_as_described(case, host):
    response = case.call_and_validate(base_url=f"http://127.0.0.1:{host.port}", checks=CHECKS)
    assert response.status_code in {200, 403}
    if response.status_code == 403:
        assert response.content == b""
        assert sorted(map(str.lower, response.headers)) == ["connection", "content-length"]


@officer_schema.parametrize()
@settings(SETTINGS, max_examples=10)
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_the_officer_is_answered_as_described(case, interface):
    checks = [*CHECKS, response_schema_conformance]
    case.call_and_validate(
        base_url=interface.url, session=interface.officers, verify=False, checks=checks
    )


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_what_is_done_for_the_officer_is_answered_as_described(interface):
    """What nobody thinks of without her key."""
    batch = interface.officer.sign(interface.split_batch(2))
    which = {"why": "a test", "user_id": "alice@office"}
    asked = [
        ("POST", BATCHES, {"data": batch}, {"user_id": "alice@office", "pairs": 2, "new": 2}),
        ("POST", REVOCATIONS, {"json": which}, {"revoked": 2, "importing": 0, "tunnels": 0}),
        ("GET", PAIRS, {}, None),
    ]
    for method, path, body, told in asked:
        answer = interface.officers.request(method, interface.url + path, verify=False, **body)
        assert answer.status_code == 200
        assert told in (None, answer.json())
        officer_schema[path][method].validate_response(answer)


@officer_schema.parametrize()
@settings(SETTINGS, max_examples=2)
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_who_is_not_the_officer_is_told_nothing(case, interface):
    response = case.call(base_url=interface.url, session=interface.hosts, verify=False)
    assert (response.status_code, response.content) == (403, b"")


@target_schema.parametrize()
@SETTINGS
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_the_target_answers_as_described(case, target):
    url = f"https://127.0.0.1:{target.port}"
    case.call_and_validate(base_url=url, session=target.office, verify=False, checks=CHECKS)


@target_schema.parametrize()
@settings(SETTINGS, max_examples=5)
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_who_has_no_name_is_told_nothing(case, target):
    url = f"https://127.0.0.1:{target.port}"
    response = case.call(base_url=url, session=target.nobody, verify=False)
    assert response.status_code in {400, 403, 404, 405}
    assert response.content == b""
