import base64
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from carnet.wire.keys import encode_public_key
from provisioning.pkcs8 import encrypt_key
from tests.provisioning.workplace import SECRETS

SCRYPT_16_MIB_FIVE_TIMES = bytes.fromhex("02024000 020108 020105 020120")  # RFC 7914 section 7


def modes_below(directory):
    return {
        path.relative_to(directory).as_posix(): path.stat().st_mode & 0o777
        for path in [directory, *directory.rglob("*")]
    }


def test_init_makes_a_key_that_the_passphrase_opens(workplace):
    workplace.init()
    officer = workplace.directory / "officer"
    assert modes_below(officer) == {".": 0o700, "officer.key": 0o600, "officer.crt": 0o600}
    pem = (officer / "officer.key").read_bytes()
    key = load_pem_private_key(pem, SECRETS["passphrase"].encode())
    assert key.public_key() == workplace.officer_key()


def test_the_officers_certificate_is_an_authority_of_end_entities_only(workplace):
    workplace.init()
    pem = (workplace.directory / "officer" / "officer.crt").read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    certificate.verify_directly_issued_by(certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_init_does_not_replace_an_officer(workplace):
    workplace.init()
    key = workplace.directory / "officer" / "officer.key"
    before = key.read_bytes()
    assert "exists already" in workplace.refusal(2, "init", secrets=["passphrase"])
    assert key.read_bytes() == before


def test_init_refuses_an_empty_passphrase(workplace):
    workplace.refusal(2, "init", secrets=["passphrase"], passphrase="")
    workplace.environment["CARNET_OFFICER_PASSPHRASE"] = ""
    assert "is empty" in workplace.refusal(2, "init")
    assert not (workplace.directory / "officer").exists()


def test_the_passphrase_comes_from_the_environment_or_a_private_file(workplace):
    workplace.environment["CARNET_OFFICER_PASSPHRASE"] = SECRETS["passphrase"]
    workplace.facts("init")
    del workplace.environment["CARNET_OFFICER_PASSPHRASE"]
    file = workplace.directory / "passphrase"
    file.write_text(SECRETS["passphrase"])
    command = ("certificates", "host", "office", "--out", workplace.directory / "host-link")
    file.chmod(0o644)
    assert "chmod 600" in workplace.refusal(2, *command, "--passphrase-file", file)
    file.chmod(0o600)
    workplace.facts(*command, "--passphrase-file", file)


def test_a_wrong_passphrase_is_one_sentence_and_certifies_nothing(workplace):
    workplace.init()
    out = workplace.directory / "host-link"
    sentence = workplace.refusal(
        2,
        *("certificates", "host", "office", "--out", out),
        secrets=["passphrase"],
        passphrase="wrong",
    )
    assert "passphrase does not open" in sentence
    assert not out.exists()


def test_without_a_source_or_a_terminal_the_passphrase_is_not_waited_for(workplace):
    assert "no terminal" in workplace.refusal(2, "init")


def test_the_key_file_withstands_guessing():
    key = ec.generate_private_key(ec.SECP256R1())
    pem = encrypt_key(key, "grüße")
    assert load_pem_private_key(pem, "grüße".encode()).private_numbers() == key.private_numbers()
    der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    assert SCRYPT_16_MIB_FIVE_TIMES in der


def test_the_key_file_opens_with_openssl(workplace):
    workplace.init()
    key = workplace.directory / "officer" / "officer.key"
    opened = subprocess.run(
        ["openssl", "pkey", "-in", key, "-passin", "stdin", "-pubout", "-outform", "DER"],
        input=SECRETS["passphrase"].encode(),
        capture_output=True,
        check=True,
    )
    assert opened.stdout == encode_public_key(workplace.officer_key())
