"""What one would take instead: strongSwan by itself, with a certificate and a key on a token.

Client and Target are in a network like the one that `carnet connect` is measured in, and the
key on a SoftHSM2 token, which charon opens through its own pkcs11 plugin. The key is a
long-term one, and nobody but the two daemons takes part.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from carnet.files import write_private
from carnet.token.finding import find_module
from lab.charon import VICI, Charon, choose_lane
from lab.machine import Machine
from lab.network import TARGET_ADDRESS, VIRTUAL_NETWORK, WORK_NETWORK
from lab.office import Office
from lab.world import World
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare

_NAME = "peer"
_KEY = "01"
"""CKA_ID of the key, in hexadecimal."""
_URI = ("--uri", f"unix://{VICI}")

_CLIENT = """
connections {{
  peer {{
    version = 2
    proposals = aes256gcm16-prfsha256-x25519
    remote_addrs = {target}
    vips = 0.0.0.0
    send_cert = always
    local {{
      auth = pubkey
      certs = client.pem
      id = client.peer
    }}
    remote {{
      auth = pubkey
      id = target.peer
    }}
    children {{
      peer {{
        esp_proposals = aes256gcm16-x25519
        remote_ts = {network}
      }}
    }}
  }}
}}
secrets {{
  token {{
    handle = {key}
    module = token
    pin = {pin}
  }}
}}
"""
_TARGET = """
connections {{
  peer {{
    version = 2
    proposals = aes256gcm16-prfsha256-x25519
    pools = peer
    send_cert = always
    local {{
      auth = pubkey
      certs = target.pem
      id = target.peer
    }}
    remote {{
      auth = pubkey
      id = client.peer
    }}
    children {{
      peer {{
        esp_proposals = aes256gcm16-x25519
        local_ts = {network}
      }}
    }}
  }}
}}
pools {{
  peer {{
    addrs = {addresses}
  }}
}}
"""


@contextmanager
def peer() -> Iterator[Callable[[], dict[str, float]]]:
    """Set both ends up; give what connects once and returns milliseconds: all, and by step."""
    lane = choose_lane()
    with World() as world:
        pin = secrets.token_hex(4)
        token = {CONFIGURATION_VARIABLE: str(prepare(world.client.directory / "softhsm"))}
        public = _key_on_token(Office(world, lane), pin, token)
        _write(world, pin, public)
        client = Charon(world.client, lane, module=find_module(None), extra=token)
        target = Charon(world.target, lane)
        client.start()
        target.start()
        try:
            _swanctl(world.target, "--load-all", "--noprompt")
            yield lambda: _connect(world.client)
        finally:
            client.stop()
            target.stop()


def _connect(client: Machine) -> dict[str, float]:
    marks = [time.perf_counter()]
    _swanctl(client, "--load-all", "--clear", "--noprompt")
    marks.append(time.perf_counter())
    _swanctl(client, "--initiate", "--child", _NAME)
    marks.append(time.perf_counter())
    _swanctl(client, "--terminate", "--ike", _NAME)
    load, initiate = (1000 * (after - before) for before, after in pairwise(marks))
    return {"all": load + initiate, "load": load, "initiate": initiate}


def _swanctl(machine: Machine, command: str, *options: str) -> None:
    extra = {"SWANCTL_DIR": str(machine.directory / "swanctl")}
    machine.run(["swanctl", command, *options, *_URI], extra=extra)


def _key_on_token(office: Office, pin: str, token: dict[str, str]) -> ec.EllipticCurvePublicKey:
    """Make a token and a key on it; return its public half."""
    client, file = office.world.client, office.world.client.directory / "public.der"
    office.command(
        client, "carnet-provision", "token-init", "--label", _NAME,
        given={"pin": pin, "so-pin": secrets.token_hex(4)}, extra=token,
    )  # fmt: skip
    tool = ["pkcs11-tool", "--module", str(find_module(None)), "--token-label", _NAME]
    options = ["--login", "--pin", "env:PIN", "--id", _KEY]
    extra = token | {"PIN": pin}
    client.run([*tool, *options, "--keypairgen", "--key-type", "EC:prime256v1"], extra=extra)
    read = ["--read-object", "--type", "pubkey", "--output-file", str(file)]
    client.run([*tool, *options, *read], extra=extra)
    key = load_der_public_key(file.read_bytes())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("pkcs11-tool has made another key than one on P-256.")
    return key


def _write(world: World, pin: str, public: ec.EllipticCurvePublicKey) -> None:
    """Write what swanctl loads at both ends: configuration, certificates, Target's key."""
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    texts = {
        world.client: _CLIENT.format(
            target=TARGET_ADDRESS, network=WORK_NETWORK, key=_KEY, pin=pin
        ),
        world.target: _TARGET.format(network=WORK_NETWORK, addresses=VIRTUAL_NETWORK),
    }
    keys = {world.client: public, world.target: own.public_key()}
    for machine, text in texts.items():
        place = machine.directory / "swanctl"
        certificate = _certificate(f"{machine.name}.peer", keys[machine], authority)
        files = {
            "swanctl.conf": text.encode(),
            f"x509/{machine.name}.pem": certificate,
            "x509ca/authority.pem": _certificate(
                "authority.peer", authority.public_key(), authority
            ),
        }
        if machine is world.target:
            pem = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            files["private/target.pem"] = pem
        for name, data in files.items():
            _file(place / name, data)


def _file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, data)


def _certificate(
    name: str, key: ec.EllipticCurvePublicKey, authority: ec.EllipticCurvePrivateKey
) -> bytes:
    now = datetime.now(UTC)
    subject, issuer = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)])
        for each in (name, "authority.peer")
    )
    is_authority = name == "authority.peer"
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return built.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM)
