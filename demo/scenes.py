"""The demonstration, scene by scene."""

import hashlib
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from demo import stage
from demo.proofs import Proofs, in_time
from lab.capture import OTHER, Capture
from lab.charon import Lane
from lab.errors import LabError
from lab.http_client import request
from lab.network import CLIENT_ADDRESS, HOST_ADDRESS, SERVER_ADDRESS, TARGET_ADDRESS
from lab.office import HOST_PORT, HOST_URL, TARGET_PORT, USER, Office, files_below
from lab.terminal import type_in
from lab.tls_look import HANGS_UP, OLDER, WITH, WITHOUT, look
from lab.wiretap import Overheard, overheard

PAIRS = 20
_FILE = "plan.bin"
_FILE_SIZE = 2_000_000
_FILE_URL = f"http://{SERVER_ADDRESS}/{_FILE}"
_MARK = b"the plan of the work network, which nobody on the way may read\n"
_LAB = Path(__file__).resolve().parents[1] / "lab"

_MAP = """
 officer          client ---- router ---- Host        (knows the key pairs, holds the HSM token)
 (no network)                 (NAT)  `--- Target ---- server
 token: minted    token:                  (gateway of the work network 10.20.0.0/16)
 here, then ...   ... carried here
"""


class Demonstration:
    """One run: an office in a world, a capture on its router, and the claims."""

    def __init__(self, office: Office, capture: Capture, proofs: Proofs) -> None:
        self.office = office
        self.world = office.world
        self.capture = capture
        self.proofs = proofs
        self._heard: Overheard

    def run(self, lane: Lane) -> None:
        """Play all scenes."""
        self.network(lane)
        self.officer()
        self.agents()
        with self.office.at_work():
            self.see_agents()
            self.traveller()
            self.through_the_tunnel()
            self.spent_pair()
            self.second_tunnel()
            self.accounts()

    def network(self, lane: Lane) -> None:
        """Scene 1."""
        stage.scene(1, "The network")
        stage.console.print(_MAP, style="dim")
        stage.tell(f"{len(self.world.machines)} machines, each in namespaces of its own, linked")
        stage.tell("by cables of their own; the router hides the client behind NAT.")
        stage.tell(lane.sentence)
        content = _MARK + secrets.token_bytes(_FILE_SIZE)
        (self.world.server.directory / _FILE).write_bytes(content)
        server = ["python", str(_LAB / "file_server.py"), SERVER_ADDRESS, "80"]
        self.world.server.start([*server, str(self.world.server.directory)])
        self.world.server.wait_for_port(80)

    def officer(self) -> None:
        """Scenes 2 and 3."""
        stage.scene(2, "The security officer initialises two tokens and certifies the link")
        stage.command("officer", "carnet-provision token-init --label alice")
        stage.command("host", "carnet-provision token-init --label hsm")
        self.office.initialise_tokens()
        stage.command("officer", "carnet-provision certificates host office")
        stage.command("officer", "carnet-provision certificates target work")
        self.office.certify()
        self.office.configure()
        stage.scene(3, f"She mints {PAIRS} one-time key pairs for {USER}")
        argv = self.office.mint_command(PAIRS)
        stage.command("officer", f"carnet-provision mint --user {USER} --count {PAIRS} ...")
        known = self.office.secrets
        type_in(
            self.world.officer,
            argv,
            {"passphrase": known.passphrase, "PIN": known.pin},
            show=True,
        )
        self.office.carry_over()
        stage.tell("The token goes with the traveller, the batch to the Host on a USB stick.")
        stage.command("host", "carnet-host import alice.batch")
        imported = self.office.import_batch()
        stage.tell(f"{imported['new']} new key pairs in the Key Database.")
        self._see_both_tokens()
        self._see_whose_they_are()
        self._see_batch()

    def _see_both_tokens(self) -> None:
        travellers, hosts = self._listings()
        same = {key["key_id"] for key in travellers} == {key["key_id"] for key in hosts}
        kept = all(k["sensitive"] and not k["extractable"] for k in travellers + hosts)
        self.proofs.see(
            "the same key pairs are on both tokens, and neither lets one out",
            f"{len(travellers)} and {len(hosts)} private keys listed, ids "
            f"{'equal' if same else 'DIFFERENT'}, {'all' if kept else 'NOT all'} sensitive "
            f"and not extractable",
            holds=same and kept and len(hosts) == PAIRS,
        )

    def _see_whose_they_are(self) -> None:
        seen = {
            machine.name: [t["label"] for t in self.office.facts(machine, "carnet", "tokens")]
            for machine in (self.world.client, self.world.host, self.world.target)
        }
        told = (f"{name}: {', '.join(labels) or 'none'}" for name, labels in seen.items())
        self.proofs.see(
            "each token is seen by its own side alone",
            "; ".join(told),
            holds=seen == {"client": ["alice"], "host": ["hsm"], "target": []},
        )

    def _see_batch(self) -> None:
        batch = self.office.batch.read_bytes()
        keys = [bytes.fromhex(pair["key_id"]) for pair in self.office.pairs()]
        stage.tell(f"The batch: {len(batch)} bytes, signed, private keys wrapped.")
        self.proofs.see(
            "the Key Database holds every pair as valid",
            f"{sum(pair['state'] == 'valid' for pair in self.office.pairs())} rows valid",
            holds=len(keys) == PAIRS
            and all(pair["state"] == "valid" for pair in self.office.pairs()),
        )

    def agents(self) -> None:
        """Scene 4."""
        stage.scene(4, "Host and Target go to work, each a process of its own")
        stage.command("target", f"carnet-target users add {USER} --objective esp ...")
        self.office.admit()
        stage.command("target", "carnet-target serve")
        stage.command("host", "carnet-host serve")

    def see_agents(self) -> None:
        """Scene 4, when they serve."""
        stage.tell("Both say that they are ready. Target's door, as seen from the Host:")
        etc = self.world.host.directory / "etc"
        said = look(self.world.host, TARGET_ADDRESS, TARGET_PORT, "work", etc)
        for how, answer in said.items():
            stage.tell(f"  {how:38} {answer}")
        self.proofs.see(
            "Target speaks TLS 1.3 alone, and to nobody without a certificate",
            f"with both {said[WITH]}; without either {said[WITHOUT]}, {said[OLDER]}",
            holds=said[WITH].startswith("HTTP/1.1 ") and said[WITHOUT] == said[OLDER] == HANGS_UP,
        )

    def traveller(self) -> None:
        """Scene 5."""
        stage.scene(5, "The traveller plugs her token into a strange machine")
        config = self.world.client.directory / ".config"
        stage.tell(f"Carnet configuration on it: {'SOME' if config.exists() else 'none'}.")
        self._see_unreachable("before the tunnel, the server cannot be reached")
        self._connect("first")
        status = self.office.facts(self.world.client, "carnet", "status")
        suite = status[0]["live"]["child_suite"] if status and status[0]["up"] else "no SA"
        self.proofs.see(
            "the tunnel is up, by the daemon's own word, and its machine has no configuration",
            f"{suite}, {'SOME' if config.exists() else 'no'} configuration",
            holds=suite.startswith("ESP") and not config.exists(),
        )

    def _connect(self, which: str) -> None:
        stage.command("client", "carnet connect")
        status, _ = type_in(
            self.world.client,
            ["carnet", "connect"],
            {"PIN": self.office.secrets.pin},
            show=True,
        )
        self.proofs.see(
            f"the {which} carnet connect succeeds", f"exit status {status}", holds=status == 0
        )

    def _see_unreachable(self, claim: str) -> None:
        answer = request(self.world.client, "GET", _FILE_URL)
        stage.tell(f"GET {_FILE_URL}: {answer.error or answer.status}")
        self.proofs.see(claim, answer.error or f"HTTP {answer.status}", holds=answer.status == 0)

    def through_the_tunnel(self) -> None:
        """Scene 6."""
        stage.scene(6, "A file through the tunnel")
        answer = request(self.world.client, "GET", _FILE_URL)
        content = (self.world.server.directory / _FILE).read_bytes()
        stage.tell(f"GET {_FILE_URL}: HTTP {answer.status}, {len(answer.body)} bytes")
        ours, theirs = (hashlib.sha256(data).hexdigest() for data in (answer.body, content))
        self.proofs.see(
            "the file comes through the tunnel as it is on the server",
            f"{len(answer.body)} bytes, SHA-256 {ours[:16]}... against {theirs[:16]}...",
            holds=ours == theirs,
        )

    def spent_pair(self) -> None:
        """Scene 7."""
        stage.scene(7, "The spent key pair is dead")
        self.capture.flush()
        heard = overheard(self.capture.path, CLIENT_ADDRESS, HOST_ADDRESS, HOST_PORT)
        if not heard:
            raise LabError("The Host answered no request; KEEP=1 keeps its log.")
        self._heard = heard[0]
        spent = next(pair for pair in self.office.pairs() if pair["state"] == "invalid")
        self._see_burned(spent)
        self._replay()
        self._forge(spent)

    def _see_burned(self, spent: dict[str, Any]) -> None:
        def gone_from(listings: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> bool:
            return all(key["key_id"] != spent["key_id"] for keys in listings for key in keys)

        travellers, hosts = in_time(self._listings, gone_from)
        gone = gone_from((travellers, hosts))
        stage.tell(f"Key pair {spent['key_id']}: {spent['state']} ({spent['reason']}).")
        self.proofs.see(
            "the spent pair's private key is gone from both tokens",
            f"{len(travellers)} and {len(hosts)} private keys left, the spent one "
            f"{'on neither' if gone else 'STILL THERE'}",
            holds=gone and len(travellers) == len(hosts) == PAIRS - 1,
        )
        self.proofs.see(
            "the Key Database says invalid",
            f"state {spent['state']}, reason {spent['reason']}",
            holds=(spent["state"], spent["reason"]) == ("invalid", "spent"),
        )

    def _replay(self) -> None:
        stage.tell("An eavesdropper sends the same sealed bytes again.")
        before = len(self.office.tunnels())
        answer = request(self.world.client, "POST", f"{HOST_URL}/v1/requests", self._heard.request)
        same = answer.body == self._heard.answer
        self.proofs.see(
            "the same sealed bytes get the very same sealed answer",
            f"HTTP {answer.status}, {len(answer.body)} bytes, {'equal' if same else 'DIFFERENT'}",
            holds=same,
        )
        after = len(self.office.tunnels())
        self.proofs.see(
            "and no second tunnel", f"tunnels at Target: {before}, then {after}",
            holds=before == after == 1,
        )  # fmt: skip

    def _forge(self, spent: dict[str, Any]) -> None:
        stage.tell("Then other bytes under the same key pair, and under a pair nobody knows.")
        heard, key_id = self._heard.request, bytes.fromhex(spent["key_id"])
        changed = heard[:-1] + bytes([heard[-1] ^ 1])
        unknown = heard.replace(key_id, bytes(len(key_id)))
        url = f"{HOST_URL}/v1/requests"
        answers = [request(self.world.client, "POST", url, body) for body in (changed, unknown)]
        stripped = [(a.status, [h for h in a.headers if h[0] != "Date"], a.body) for a in answers]
        self.proofs.see(
            "other bytes under that key are refused, as if it had never been",
            f"HTTP {answers[0].status} and {answers[1].status}, "
            f"{'indistinguishable' if stripped[0] == stripped[1] else 'DISTINGUISHABLE'}",
            holds=stripped[0] == stripped[1] and stripped[0][0] == 403 and not stripped[0][2],  # noqa: PLR2004
        )

    def second_tunnel(self) -> None:
        """Scene 8."""
        stage.scene(8, "She disconnects, and the next tunnel takes the next pair")
        self._show("status")
        self._show("disconnect")
        self._see_unreachable("after disconnecting, the server cannot be reached")
        self._connect("second")
        spent = [pair["label"] for pair in self.office.pairs() if pair["state"] == "invalid"]
        order = [pair["label"] for pair in self.office.pairs()]
        self.proofs.see(
            "the second connection took the next pair",
            f"spent: numbers {', '.join(label.split()[-1] for label in spent)}",
            holds=spent == order[:2],
        )
        self._show("status")
        self._show("disconnect")
        open_ones = in_time(self._open_ones, lambda tunnels: not tunnels)
        self.proofs.see(
            "nothing is left open at Target", f"{len(open_ones)} tunnels open", holds=not open_ones
        )

    def _open_ones(self) -> list[dict[str, Any]]:
        return [t for t in self.office.tunnels() if t["state"] not in {"ended", "refused"}]

    def _show(self, *argv: str) -> None:
        stage.command("client", f"carnet {' '.join(argv)}")
        stage.output(self.office.carnet(*argv))

    def accounts(self) -> None:
        """Scene 9: the accounts, the capture over the whole run, and the secrets."""
        stage.scene(9, "The accounts, and what was on the wire over the whole run")
        verified = {
            "host": self.office.host("audit", "verify", given=self.office.hsm_pin),
            "target": self.office.target("audit", "verify"),
        }
        for name, done in verified.items():
            stage.command(name, f"carnet-{name} audit verify")
            stage.output(done)
            self.proofs.see(
                f"the accounts of {name} are whole", done.stdout.strip(), holds=not done.returncode
            )
        self.capture.flush()
        counts = self.capture.between(CLIENT_ADDRESS, TARGET_ADDRESS)
        for kind, count in counts.items():
            stage.tell(f"  {kind:18} {count:6} packets")
        esp = counts["ESP"] + counts["ESP in UDP 4500"]
        self.proofs.see(
            "between Client and Target there was only IKE and ESP",
            f"{sum(counts.values())} packets, {esp} of them ESP, {counts[OTHER]} of another kind",
            holds=counts[OTHER] == 0 and esp > _FILE_SIZE // 1500,
        )
        readable = _MARK in self.capture.path.read_bytes()
        self.proofs.see(
            "the router cannot read the file",
            f"its first line {'IS' if readable else 'is not'} in the capture",
            holds=not readable,
        )
        self._see_secrets()

    def _see_secrets(self) -> None:
        known = [secret.encode() for secret in vars(self.office.secrets).values()]
        files = list(files_below(self.world.directory))
        with_secret = [f for f in files if any(s in _content(f) for s in known)]
        self.proofs.see(
            "no PIN and no passphrase is in any file that the run wrote",
            f"{len(files)} files searched for {len(known)} secrets, {len(with_secret)} found",
            holds=not with_secret,
        )

    def _listings(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        known = self.office.secrets
        return (
            self.office.listing(self.world.client, known.pin),
            self.office.listing(self.world.host, known.hsm_pin),
        )


def _content(path: Path) -> bytes:
    """Return what is in a file; nothing of one that is gone by now, such as of a burned key."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return b""
