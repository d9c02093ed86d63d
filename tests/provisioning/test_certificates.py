import asyncio
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from carnet.link import LinkSection, client_context, peer_name, server_context


@pytest.fixture
def link(workplace):
    workplace.init()
    return Link(workplace)


class Link:
    """Certificates by role, and a handshake between any two of them."""

    def __init__(self, workplace):
        self.workplace = workplace

    def certify(self, role, name, *options, out=None):
        directory = self.workplace.directory / (out or f"{role}-{name}")
        command = ("certificates", role, name, "--out", directory, *options)
        self.workplace.facts(*command, secrets=["passphrase"])
        return directory

    def refused(self, role, name, *options, out):
        command = ("certificates", role, name, "--out", out, *options)
        return self.workplace.refusal(2, *command, secrets=["passphrase"])

    @staticmethod
    def shake_hands(client, server, expected="work"):
        return asyncio.run(
            _shake_hands(context(client_context, client), context(server_context, server), expected)
        )


def context(make, directory):
    return make(
        LinkSection(
            certificate=directory / "link.crt",
            key=directory / "link.key",
            authority=directory / "officer.crt",
        )
    )


async def _shake_hands(client, server, expected):
    """Return the TLS version and the two names that each side has seen."""
    seen = asyncio.get_running_loop().create_future()

    async def answer(_, writer):
        seen.set_result(
            (writer.get_extra_info("ssl_object").version(), peer_name(writer.transport))
        )
        writer.write(b"!")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
    async with listener:
        address = listener.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(
            *address, ssl=client, server_hostname=expected
        )
        try:
            await reader.readexactly(1)
            return *await seen, peer_name(writer.transport)
        finally:
            writer.close()


def test_host_and_target_shake_hands_over_tls_1_3(link):
    host, target = link.certify("host", "office"), link.certify("target", "work")
    assert link.shake_hands(host, target) == ("TLSv1.3", "office", "work")


def test_a_host_cannot_pose_as_a_target(link):
    host, imposter = link.certify("host", "office"), link.certify("host", "work")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        link.shake_hands(host, imposter)


def test_a_target_cannot_pose_as_a_host(link):
    imposter, target = link.certify("target", "office"), link.certify("target", "work")
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        link.shake_hands(imposter, target)


def test_a_target_of_another_name_is_refused(link):
    host, target = link.certify("host", "office"), link.certify("target", "play")
    with pytest.raises(ssl.SSLCertVerificationError, match="work"):
        link.shake_hands(host, target)


def test_another_officers_target_is_refused(link, workplace):
    host = link.certify("host", "office")
    workplace.environment["CARNET_OFFICER_DIR"] = str(workplace.directory / "other")
    workplace.init()
    with pytest.raises(ssl.SSLCertVerificationError):
        link.shake_hands(host, link.certify("target", "work"))


def test_the_files_are_private_and_the_key_is_p256(link):
    directory = link.certify("target", "work")
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert modes == {"link.key": 0o600, "link.crt": 0o600, "officer.crt": 0o600}
    assert directory.stat().st_mode & 0o777 == 0o700
    certificate = x509.load_pem_x509_certificate((directory / "link.crt").read_bytes())
    assert isinstance(certificate.public_key().curve, ec.SECP256R1)
    validity = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert 730 <= validity.days <= 731


def test_nothing_is_overwritten(link):
    directory = link.certify("host", "office")
    before = {path: path.read_bytes() for path in directory.iterdir()}
    assert "exists already" in link.refused("host", "office", out=directory)
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


def test_a_directory_that_was_used_gets_no_part_of_the_files(link, workplace):
    out = workplace.directory / "used"
    out.mkdir()
    (out / "officer.crt").write_text("another's")
    assert "exists already" in link.refused("host", "office", out=out)
    assert [path.name for path in out.iterdir()] == ["officer.crt"]


def test_a_certificate_does_not_outlive_the_officers(link, workplace):
    out = workplace.directory / "long"
    assert "fewer days" in link.refused("host", "office", "--days", "4000", out=out)
    assert not out.exists()


def test_a_name_that_no_agent_has_is_refused(link, workplace):
    link.refused("host", "Office", out=workplace.directory / "out")


def request(path, key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "whatever it says")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    path.write_bytes(csr.public_bytes(Encoding.PEM))
    return csr


def test_a_request_is_signed_under_the_officers_name_for_it(link, workplace):
    file = workplace.directory / "request.pem"
    key = ec.generate_private_key(ec.SECP384R1())
    request(file, key)
    directory = link.certify("target", "work", "--csr", file)
    assert not (directory / "link.key").exists()
    certificate = x509.load_pem_x509_certificate((directory / "link.crt").read_bytes())
    assert certificate.public_key() == key.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["work"]
    assert certificate.subject.rfc4514_string() == "CN=work"


def test_a_request_that_does_not_prove_its_key_is_refused(link, workplace):
    file, out = workplace.directory / "request.pem", workplace.directory / "out"
    csr = request(file, ec.generate_private_key(ec.SECP256R1()))
    der = bytearray(csr.public_bytes(Encoding.DER))
    der[der.index(b"whatever")] ^= 1
    file.write_bytes(x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM))
    assert "own key" in link.refused("host", "office", "--csr", file, out=out)
    request(file, rsa.generate_private_key(65537, 2048))
    assert "P-256" in link.refused("host", "office", "--csr", file, out=out)
    assert not out.exists()
