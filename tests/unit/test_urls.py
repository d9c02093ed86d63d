"""Addresses of Hosts, as covers and configurations carry them."""

import msgspec
import pytest

from carnet.wire.documents import Url


@pytest.mark.parametrize(
    "url", ["http://host", "https://host:1", "http://[2001:db8::1]:65535/carnet", "http://h:443/"]
)
def test_an_address_with_a_port_there_can_be(url):
    assert msgspec.convert(url, Url) == url


@pytest.mark.parametrize(
    "url",
    ["ftp://host", "http://", "http://h:0", "http://h:65536", "http://h:080", "http://h:", "h:80"],
)
def test_what_nobody_can_connect_to_is_no_address(url):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(url, Url)
