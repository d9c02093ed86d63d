"""Which tokens a profile is of; a YubiHSM is of the same maker as a YubiKey, and no PIV card."""

import pytest
from msgspec.structs import replace

from carnet.token.profiles import profile_of
from tests.unit.examples import INFO


@pytest.mark.parametrize(
    ("manufacturer", "model", "places"),
    [
        ("piv_II", "PKCS#15 emulated", 24),
        ("Yubico (www.yubico.com)", "YubiKey YK5", 24),
        ("Yubico (www.yubico.com)", "YubiHSM", None),
        ("www.CardContact.de", "PKCS#15 emulated", None),
        ("SoftHSM project", "SoftHSM v2", None),
    ],
)
def test_places(manufacturer, model, places):
    profile = profile_of(replace(INFO, manufacturer=manufacturer, model=model))
    assert (profile.places if profile else None) == places
