"""Both HTTP interfaces against their descriptions, with whatever schemathesis thinks of."""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    status_code_conformance,
)

from tests.fuzz.corpus import seeds

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
target_schema = schemathesis.openapi.from_path(str(DOCS / "openapi-target.yaml"))


@pytest.fixture
def host(make_host):
    with make_host() as serving_host:
        yield serving_host


@host_schema.parametrize()
@SETTINGS
def test_the_host_answers_as_described(case, host):
    response = case.call_and_validate(base_url=f"http://127.0.0.1:{host.port}", checks=CHECKS)
    assert response.status_code in {200, 403}
    if response.status_code == 403:
        assert response.content == b""
        assert sorted(map(str.lower, response.headers)) == ["connection", "content-length"]


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
