"""A Host whose name leads nowhere is asked at the addresses at which it was found before."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.exchange.client import AnswerArrived, NoAnswer
from tests.unit.test_host_sender import answering
from tests.unit.test_sessions import a_session
from token_client import doctor, ending, nat, whereabouts
from token_client.config import ClientConfig
from token_client.host import HostSender
from token_client.sessions import SessionStore

NAME, ELSEWHERE = "host.example", "other.example"
KNOWN = ((NAME, "127.0.0.1"),)
look_up = socket.getaddrinfo


@pytest.fixture(params=["says no", "is silent"])
def resolver(request, monkeypatch):
    """No name is looked up: whoever would answer is behind a tunnel that is down."""
    over = threading.Event()

    def answer(name, *args, **kwargs):
        if name in {NAME, ELSEWHERE}:
            if request.param == "is silent":
                over.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(name, *args, **kwargs)

    monkeypatch.setattr(whereabouts, "LOOK_UP_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", answer)
    yield
    over.set()


def by_name(url, name=NAME):
    return url.replace("127.0.0.1", name)


@pytest.mark.usefixtures("resolver")
def test_a_request_is_sent_to_where_the_host_was():
    with answering((200, {}, b"sealed")) as (url, sent):
        sender = HostSender((by_name(url),), 0, lambda _: None, KNOWN)
        assert isinstance(sender.send(b"request").event, AnswerArrived)
    assert sent == [b"request"]


@pytest.mark.usefixtures("resolver")
def test_why_a_tunnel_ended_is_asked_where_the_host_was():
    with answering((503, {"Carnet-Reason": "tunnel-lives"})) as (url, sent):
        session = a_session(name="carnet-" + "00" * 16, hosts=(by_name(url),), known_hosts=KNOWN)
        assert ending.why_ended(session, once=True) is None
    assert sent == [bytes(16)]


@pytest.mark.usefixtures("resolver")
def test_where_this_machine_is_seen_is_asked_where_the_host_was():
    with answering((200, {}, b"127.0.0.1")) as (url, _):
        assert nat.behind_nat((by_name(url),), KNOWN) is False


@pytest.mark.usefixtures("resolver")
def test_the_doctor_looks_where_the_host_was(monkeypatch):
    with answering((200, {}, b"127.0.0.1")) as (url, _):
        monkeypatch.setattr(doctor, "known_here", lambda: KNOWN)
        examination = doctor._Examination(ClientConfig(hosts=(by_name(url),)), None)
        assert by_name(url) in examination._look_at_host()


@pytest.mark.parametrize("resolver", ["says no"], indirect=True)
def test_another_s_address_is_no_host_s(resolver):
    with answering() as (url, sent):
        sender = HostSender((by_name(url, ELSEWHERE),), 0, lambda _: None, KNOWN)
        silence = sender.send(b"request").event
    assert isinstance(silence, NoAnswer)
    assert "temporary failure in name resolution" in silence.detail
    assert sent == []


def test_a_name_that_leads_somewhere_is_gone_by(monkeypatch):
    """The Host may have moved, or this machine."""
    moved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    def answer(name, *args, **kwargs):
        return moved if name == NAME else look_up(name, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with answering((200, {}, b"sealed")) as (url, _):
        sender = HostSender((by_name(url),), 0, lambda _: None, ((NAME, "127.0.0.9"),))
        assert isinstance(sender.send(b"request").event, AnswerArrived)


@pytest.mark.parametrize("resolver", ["says no"], indirect=True)
def test_what_is_known_of_a_session_is_known_to_the_next(resolver, tmp_path, monkeypatch):
    """The next one's block lets through what it found; and that is in its record again."""
    monkeypatch.setattr(whereabouts, "memory_directory", lambda: tmp_path)
    SessionStore(tmp_path).keep(a_session(known_hosts=KNOWN))
    known = whereabouts.known_here()
    assert known == KNOWN
    urls = (f"http://{NAME}:8470", f"https://{ELSEWHERE}", "http://[::1]:1")
    assert whereabouts.found(urls, known) == (*KNOWN, ("::1", "::1"))


def certificate(name, directory):
    """Write a certificate that vouches for itself, and its key; return their file."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / f"{name}.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path


@pytest.mark.parametrize("resolver", ["says no"], indirect=True)
@pytest.mark.parametrize("name", [NAME, ELSEWHERE])
def test_by_tls_it_is_the_host_by_its_name(resolver, name, tmp_path, monkeypatch):
    """Whoever is at its address now is not believed without a certificate for the name."""
    path, asked = certificate(name, tmp_path), []
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.sni_callback = lambda _, shown, __: asked.append(shown)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsealed"

    def serve(listening):
        connection, _ = listening.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                said = b""
                while not said.endswith(b"request"):
                    said += secured.recv(4096)
                asked.append(said.split(b"\r\n")[1])
                secured.sendall(answer)
        except OSError:
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        port = listening.getsockname()[1]
        server = threading.Thread(target=serve, args=(listening,))
        server.start()
        sender = HostSender((f"https://{NAME}:{port}",), 0, lambda _: None, KNOWN)
        event = sender.send(b"request").event
        server.join()
    assert isinstance(event, AnswerArrived) == (name == NAME)
    assert asked == [NAME, f"Host: {NAME}:{port}".encode()][: 2 if name == NAME else 1]
