"""What `carnet-host serve` looks at before it logs in to the HSM."""

import asyncio

import pytest
from msgspec import structs

from carnet.errors import UsageError
from carnet.link import LinkSection
from host_agent import serving
from tests.host.batches import host_config
from tests.target.certificates import Authority


@pytest.fixture
def config(tmp_path):
    authority = Authority(tmp_path, "officer")
    certificate, key = authority.issue("link", "office")
    link = LinkSection(certificate=certificate, key=key, authority=authority.path)
    return host_config(tmp_path, link=link)


def serve(config):
    asyncio.run(asyncio.wait_for(serving.serve(config, "no PIN", lambda: config), 60))


def test_the_certificate_of_another_host_is_refused(config):
    with pytest.raises(UsageError, match=r"of office, and `name` is bureau; .* host bureau`"):
        serve(structs.replace(config, name="bureau"))


@pytest.mark.parametrize("file", ["link.key", "nowhere.crt"])
def test_an_officer_without_a_certificate_is_refused(config, tmp_path, file):
    with pytest.raises(UsageError, match="Cannot read the officer's certificate"):
        serve(structs.replace(config, officer=tmp_path / file))
