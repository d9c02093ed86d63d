"""Batches as an officer writes them, of as many pairs as a test wants, with and without faults."""

import secrets
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from carnet.link import LinkSection
from carnet.token.host_keys import make_host_keys
from carnet.token.onetime import pair_label
from carnet.wire.documents import Batch, BatchPair, sign_document
from carnet.wire.keys import encode_public_key
from carnet.wire.suites import P256
from host_agent.batch_file import batch_at
from host_agent.config import HostConfig, TargetSection
from provisioning.authority import officer_certificate

MINTED = datetime(2026, 11, 23, 10, 15, tzinfo=UTC)
_A_SECOND = 9999
"""Pairs whose labels name the same second, at most."""


class Officer:
    """An officer whose key is at hand; `officer.crt` in the directory is what Hosts register."""

    def __init__(self, directory, file="officer.crt"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        certificate = officer_certificate(self.key, "officer", timedelta(days=30))
        assert isinstance(certificate, x509.Certificate)
        self.path = directory / file
        self.path.write_bytes(certificate.public_bytes(Encoding.PEM))

    def sign(self, digest):
        der = self.key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        return b"".join(n.to_bytes(32, "big") for n in utils.decode_dss_signature(der))


def public_key():
    return encode_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())


def label(number):
    return pair_label(MINTED + timedelta(seconds=number // _A_SECOND), number % _A_SECOND + 1)


def split_pairs(count):
    return tuple(
        BatchPair(label=label(number), public_key=public_key(), wrapped=None)
        for number in range(count)
    )


def split_batch(pairs=3, **changes):
    """Return a batch of pairs of which the Host gets the public keys alone."""
    fields = {
        "version": 1,
        "batch_id": secrets.token_bytes(16),
        "host_transport_key": public_key(),
        "ephemeral_key": None,
        "user_id": "alice@office",
        "token_serial": "1",
        "custody": "split",
        "suite": P256.number,
        "minted_at": int(MINTED.timestamp()),
        "not_after": None,
        "pairs": split_pairs(pairs) if isinstance(pairs, int) else pairs,
    }
    return Batch(**(fields | changes))


def write(path, batch, officer):
    """Write a batch as the officer's station does; return the path."""
    path.write_bytes(sign_document(batch, officer.sign))
    return path


def host_config(directory, **changes):
    """Return the configuration of a Host in that directory."""
    fields = {
        "name": "office",
        "listen": "127.0.0.1",
        "port": 8470,
        "directory": directory,
        "officer": directory / "officer.crt",
        "link": LinkSection(certificate=directory, key=directory, authority=directory),
        "targets": {"work": TargetSection(url="https://127.0.0.1:1")},
    }
    return HostConfig(**(fields | changes))


@contextmanager
def opened(batch):
    """Have a batch in the form in which an import has it, and the configuration of its Host."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        path = write(place / "batch", batch, Officer(place))
        config = host_config(place)
        with batch_at(path, config) as file:
            yield file, config


def sealing_key(session):
    """Return the Host's key on P-256 that requests are sealed to; it is made if there is none."""
    couples = make_host_keys(session)
    return next(each.sealing for each in couples if each.key_type == "ec-p256")


def pem_of(couples):
    """Return the Host's long-term keys as `carnet-host host-keys` prints them."""
    keys = [key for couple in couples for key in (couple.sealing, couple.signing)]
    return b"".join(
        load_der_public_key(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for key in keys
    )


class SessionToken:
    """An HSM token to which somebody is logged in already, and stays so."""

    def __init__(self, session):
        self._session = session

    def use(self, work):
        return work(self._session)

    def renew(self):
        pass
