"""Two processes of one Host with an HSM token each, and a traveller's real token."""

from types import SimpleNamespace

from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.fleet import on_token
from tests.fleet.fleet import Fleet, HostProcess
from tests.provisioning import tokens
from tests.provisioning.workplace import SECRETS, Workplace

PAIRS = 3


class TwoHsms(Fleet):
    """Host A and Host B; what the officer and the traveller have is in `workplace`."""

    pin = tokens.HOST_PIN

    def __init__(self, directory, place, authority, gateway):
        self.workplace = Workplace(directory / "station")
        self.workplace.make_officer()
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
        return self.workplace.on(self.workplace.traveller, on_token.seal, SECRETS["pin"], number)

    def open(self, sealed, answer):
        """Have the traveller's token open an answer; return its Request ID and session key."""
        place = self.workplace.traveller
        return self.workplace.on(place, on_token.open_answer, SECRETS["pin"], sealed, answer)

    def mark(self, number):
        """Return the number of the record that the HSM of that number remembers as the newest."""
        return self.workplace.on(self.homes[number], on_token.mark, tokens.HOST_PIN)

    def signed(self, number, head):
        """Return whether the HSM of that number has the key that signed a head."""
        return self.workplace.on(self.homes[number], on_token.signed, tokens.HOST_PIN, head)

    def held(self, number):
        """Return the key_ids of pairs of which the HSM of that number has anything at all."""
        home = self.homes[number]
        found = self.workplace.on(home, tokens.everything, tokens.HOST_PIN)
        halves = found["PRIVATE_KEY"] + found["PUBLIC_KEY"]
        return {key_id for key_id, label in halves if label.startswith("carnet 2")}
