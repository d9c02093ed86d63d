"""Fixtures of the Host's tests that are of use here too."""

from tests.host.conftest import make_host

__all__ = ["make_host"]
