"""Two processes of one Host with an HSM token each, and a traveller's real token."""

import secrets
from types import SimpleNamespace

from carnet.token.onetime import OneTimeKeys
from carnet.wire.envelope import open_response, parse_envelope, seal_request
from carnet.wire.suites import P256
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.fleet.fleet import Fleet, HostProcess
from tests.provisioning import tokens
from tests.provisioning.workplace import SECRETS, Workplace
from tests.unit.examples import make_request

PAIRS = 3


class TwoHsms(Fleet):
    """Host A and Host B; what the officer and the traveller have is in `workplace`."""

    pin = tokens.HOST_PIN

    def __init__(self, directory, place, authority, gateway):
        self.workplace = Workplace(directory / "station")
        self.workplace.init()
        self.workplace.token_init()
        self.homes = [tokens.Home(directory / name) for name in ("hsm-a", "hsm-b")]
        super().__init__(directory, place, authority, SimpleNamespace(configuration=""), gateway)
        self.batches = self._mint(directory)
        self.processes = [HostProcess(self, number) for number in (0, 1)]

    def environment_of(self, number):
        return self.environment | {
            CONFIGURATION_VARIABLE: str(prepare(self.homes[number].directory))
        }

    def configuration(self, port):
        officer = self.workplace.directory / "officer" / "officer.crt"
        text = super().configuration(port)
        return text.replace('"authority.crt"', f'"{officer}"', 1).replace('token = "hsm"', "")

    def _mint(self, directory):
        """Mint the same pairs for both transport keys; return the two batch files."""
        files, options = [], []
        for home in self.homes:
            key, batch = directory / f"{home.directory.name}.der", home.directory / "batch"
            key.write_bytes(self.workplace.on(home, tokens.initialise_host))
            files.append(batch)
            options += ["--host-transport-key", key, "--out", batch]
        self.workplace.facts(
            "mint", "--user", "alice@office", "--count", PAIRS, "--target", "work",
            "--host-url", "http://host.example:8440", *options, secrets=["pin", "passphrase"],
        )  # fmt: skip
        return files

    def seal(self, number):
        """Have the traveller's token seal a request under its pair of that number."""
        return self.workplace.on(self.workplace.traveller, seal_on_token, SECRETS["pin"], number)

    def open(self, sealed, answer):
        """Have the traveller's token open an answer; return its Request ID and session key."""
        place = self.workplace.traveller
        return self.workplace.on(place, open_on_token, SECRETS["pin"], sealed, answer)

    def held(self, number):
        """Return the key_ids of pairs of which the HSM of that number has anything at all."""
        home = self.homes[number]
        found = self.workplace.on(home, tokens.everything, tokens.HOST_PIN)
        halves = found["PRIVATE_KEY"] + found["PUBLIC_KEY"]
        return {key_id for key_id, label in halves if label.startswith("carnet 2")}


def seal_on_token(pin, number):
    with tokens._session(pin) as session:
        booklet = OneTimeKeys(session)
        pair = booklet.pairs()[number]
        request = make_request(request_id=secrets.token_bytes(16))
        key = booklet.private_key(pair.key_id)
        return pair.key_id, seal_request(request, pair.public_key, P256, key)


def open_on_token(pin, sealed, answer):
    envelope = parse_envelope(sealed)
    with tokens._session(pin) as session:
        key = OneTimeKeys(session).private_key(envelope.key_id)
        response = open_response(answer, envelope, key.pair.public_key, key)
        return response.request_id, response.session_key
