"""An order of key pairs: a value that is wrong is named."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from carnet.errors import UsageError
from provisioning.order_options import order_of


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"targets": ("work", "")}, "--target ''"),
        ({"targets": ("work", "No Name")}, "--target 'No Name'"),
        ({"hosts": ("https://office.example", "nonsense")}, "--host-url 'nonsense'"),
        ({"hosts": ("http://h",) * 9}, "too many Hosts"),
        ({"targets": ("work",) * 33}, "too many Targets"),
        ({"user_id": "alice"}, "'alice' is no user ID"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, wrong, named):
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    path = tmp_path / "key.pem"
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    order = {
        "user_id": "alice@office",
        "count": 1,
        "transport_keys": (path,),
        "host_keys": None,
        "hosts": ("http://h",),
        "targets": ("work",),
        "custody": "paired",
        "key_type": "ec-p256",
        "oaep_hash": None,
        "not_after": None,
        "outs": (tmp_path / "batch",),
    }
    with pytest.raises(UsageError) as caught:
        order_of(**order | wrong)
    assert named in caught.value.sentence
