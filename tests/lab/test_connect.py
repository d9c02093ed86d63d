"""`carnet connect` on real parts: tokens, agents, strongSwan, and a network between."""

import base64
import json
import os
import secrets
import signal
import stat
from contextlib import suppress

import pytest

from carnet.ipsec.vici_link import open_session
from lab.capture import Capture
from lab.charon import Lane
from lab.errors import LabError
from lab.http_client import request
from lab.network import CLIENT_ADDRESS, HOST_ADDRESS, TARGET_ADDRESS
from lab.office import HOST_PORT, HOST_URL, USER, files_below, pipes
from lab.terminal import type_in
from lab.waiting import wait_until
from lab.wiretap import overheard
from tests.lab.offices import FILE, FILE_URL, is_one_sentence, office_at_work
from token_client.uptime import seconds_since


@pytest.fixture(scope="module")
def office(lane):
    with office_at_work(lane, pairs=33) as made:
        yield made


@pytest.fixture(autouse=True)
def disconnected(office):
    yield
    office.disconnect()


def stands_at_target(office):
    """Wait until the one tunnel stands at Target too; return its Request ID."""
    (tunnel,) = office.live_tunnels()
    request_id = tunnel["request_id"]
    office.target_agent.wait_for_line(f'"{request_id}".*"event": "established"')
    return request_id


def fetch(office):
    return request(office.world.client, "GET", FILE_URL)


def test_a_tunnel_opens_and_carries_a_file(office):
    assert fetch(office).status == 0
    done = office.carnet("connect")
    assert done.returncode == 0, done.stderr
    assert fetch(office).body == FILE
    office.carnet("disconnect")
    assert fetch(office).status == 0


def test_every_step_is_shown_with_its_time(office):
    facts = json.loads(office.carnet("connect", "--json").stdout)
    assert set(facts["steps_ms"]) == {str(number) for number in range(1, 11)}
    assert facts["pairs_left"] == office.valid_pairs()


def test_each_tunnel_takes_the_next_pair_and_burns_it(office):
    before = office.valid_pairs()
    order = [p["key_id"] for p in office.pairs() if p["state"] == "valid"]
    assert office.carnet("connect").returncode == 0
    assert office.valid_pairs() == before - 1
    spent = order[0]
    assert spent in office.spent_pairs()
    assert spent not in office.keys_on(office.world.client)
    office.host_agent.wait_for_line(f'"key_id": "{spent}", "event": "key-destroyed"')
    assert spent not in office.keys_on(office.world.host)


def test_a_client_that_will_not_come_back_holds_no_key_once_the_tunnel_stands(office):
    extra = office.configure_client("resume = false\n")
    assert office.carnet("connect", extra=extra).returncode == 0
    with open_session(office.client_charon.vici) as session:
        assert session.get_shared()["keys"] == []


def test_the_daemons_hold_no_key_once_the_session_is_over(office):
    assert office.carnet("connect").returncode == 0
    stands_at_target(office)
    office.disconnect()
    for charon in (office.client_charon, office.target_charon):
        with open_session(charon.vici) as session:
            assert session.get_shared()["keys"] == []


def test_status_tells_what_the_daemon_tells(office):
    office.carnet("connect")
    fetch(office)
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert tunnel["up"]
    assert tunnel["live"]["child_suite"].startswith("ESP")
    assert tunnel["live"]["ppk"]
    assert tunnel["live"]["bytes_in"] >= len(FILE)
    assert 0 < tunnel["seconds_left"] <= 8 * 3600
    assert 0 <= seconds_since(tunnel["boot"], tunnel["begun"]) < tunnel["seconds_left"]


@pytest.fixture
def unrecorded(office):
    """A tunnel whose record was damaged."""
    office.carnet("connect")
    (record,) = (p for p in files_in_memory(office.world.client) if p.name.startswith("session-"))
    record.write_text("{")
    return record.stem.removeprefix("session-")


def test_a_tunnel_that_no_record_tells_of_is_shown(office, unrecorded):
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert (tunnel["name"], tunnel["recorded"], tunnel["up"]) == (unrecorded, False, True)
    shown = office.carnet("status").stdout
    assert f"`carnet disconnect {unrecorded}` ends it" in shown
    assert "up for" in shown
    assert fetch(office).body == FILE


@pytest.mark.parametrize("named", [True, False])
def test_a_tunnel_that_no_record_tells_of_is_ended(office, unrecorded, named):
    assert office.carnet("disconnect", "other").returncode == 2
    done = office.carnet("disconnect", *([unrecorded] if named else []))
    assert done.stdout == f"Ended the tunnel to {unrecorded}.\n"
    assert fetch(office).status == 0
    with open_session(office.client_charon.vici) as session:
        assert list(session.list_conns()) == []
        assert list(session.list_sas()) == []


def test_target_s_end_of_a_tunnel_is_none_of_the_travellers_command(office):
    office.carnet("connect")
    done = office.command(office.world.target, "carnet", "disconnect")
    assert done.stdout == "There was no tunnel to end.\n"
    assert office.facts(office.world.target, "carnet", "status") == []
    assert fetch(office).body == FILE


def test_disconnecting_leaves_nothing_at_either_end(office):
    office.carnet("connect")
    office.disconnect()
    assert json.loads(office.carnet("status", "--json").stdout) == []
    for charon in (office.client_charon, office.target_charon):
        with open_session(charon.vici) as session:
            assert list(session.list_conns()) == []
            assert list(session.list_sas()) == []
            assert session.get_pools() == {}


def test_the_hosts_accounts_hear_of_the_end(office):
    office.carnet("connect")
    request_id = stands_at_target(office)
    office.carnet("disconnect")
    office.host_agent.wait_for_line(f'"{request_id}".*tunnel-ended')
    accounted = [p for p in office.pairs() if p["request_id"] == request_id]
    assert accounted[0]["end_reason"] == "peer-closed"


def test_a_second_connection_takes_the_place_of_the_first(office):
    assert office.carnet("connect").returncode == 0
    assert office.carnet("connect").returncode == 0
    assert len(json.loads(office.carnet("status", "--json").stdout)) == 1
    # One that was rekeyed is listed until its peer agrees that it is deleted.
    wait_until(lambda: len(ike_sas(office.client_charon)) == 1, "the new one alone")
    assert fetch(office).body == FILE


def ike_sas(charon):
    with open_session(charon.vici) as session:
        return list(session.list_sas())


def test_two_at_once_come_one_after_the_other(office):
    before = office.valid_pairs()
    office.host_agent.stop()
    first = office.start_connect()
    first.wait_for_line("no answer yet")
    second = office.start_connect()
    second.wait_for_line("Another `carnet connect` is at work here")
    office.host_agent = office.serve_host()
    assert (first.wait(60), second.wait(60)) == (0, 0), second.output()
    assert office.valid_pairs() == before - 2
    assert len(json.loads(office.carnet("status", "--json").stdout)) == 1
    assert fetch(office).body == FILE


def test_the_foreground_ends_the_tunnel_with_the_command(office):
    process = office.start_connect("--foreground")
    process.wait_for_line("The tunnel stands until Ctrl-C")
    assert fetch(office).body == FILE
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    assert fetch(office).status == 0
    assert json.loads(office.carnet("status", "--json").stdout) == []


def test_the_foreground_tells_when_the_tunnel_ends_by_itself(office):
    process = office.start_connect("--foreground")
    process.wait_for_line("The tunnel stands until Ctrl-C")
    office.target("tunnels", "end", stands_at_target(office))
    assert process.wait() == 5
    assert "operator ended it" in process.output()


def test_the_pin_is_asked_for_at_a_terminal_and_not_shown(office):
    status, shown = type_in(
        office.world.client, ["carnet", "connect"], {"PIN": office.secrets.pin}, show=False
    )
    assert status == 0
    assert office.secrets.pin not in shown


def test_a_dry_run_sends_and_spends_nothing(office):
    before = office.valid_pairs()
    plan = json.loads(office.carnet("connect", "--dry-run", "--json").stdout)
    assert plan["target"] == "work"
    assert plan["objective"] == "esp"
    assert office.valid_pairs() == before


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--network", "10.30.0.0/16"), "network-not-allowed", "10.30.0.0/16"),
        (("--lifetime", "9h"), "lifetime-not-allowed", "8h"),
    ],
)
def test_what_the_access_control_list_does_not_grant_is_refused(office, options, code, reason):
    pairs = office.keys_on(office.world.client)
    done = office.carnet("connect", *options)
    assert done.returncode == 3
    assert is_one_sentence(done)
    assert code in done.stderr
    assert reason in done.stderr
    assert "session key" not in done.stdout
    assert len(office.keys_on(office.world.client)) == len(pairs) - 1


def test_neighbouring_networks_are_asked_for_as_one(office):
    done = office.carnet("connect", "--network", "10.20.0.0/17", "--network", "10.20.128.0/17")
    assert done.returncode == 0, done.stderr
    assert fetch(office).body == FILE


def test_a_part_of_a_network_without_an_address_of_target_s_is_refused(office, lane):
    """As userspace ESP would, in the middle of IKE; the kernel's carries it."""
    part = ("--network", "10.20.7.0/24")
    done = office.carnet("connect", *part)
    if lane is Lane.KERNEL:
        assert done.returncode == 0, done.stderr
        return
    assert (done.returncode, is_one_sentence(done)) == (3, True), done.stderr
    assert "no address of its own in 10.20.7.0/24" in done.stderr
    with pytest.raises(LabError, match=r"no address in 10\.20\.7\.0/24"):
        office.target("users", "add", USER, "--objective", "esp", "--lifetime", "8h", *part)


@pytest.mark.parametrize("options", [("--lifetime", "400d"), ("--nonsense",)])
def test_what_cannot_be_asked_for_costs_no_pair(office, options):
    before = office.keys_on(office.world.client)
    done = office.carnet("connect", *options)
    assert done.returncode == 2
    assert is_one_sentence(done)
    assert office.keys_on(office.world.client) == before
    assert office.valid_pairs() == len(before)


@pytest.mark.parametrize(
    ("configured", "options", "said"),
    [
        ('minimum = ["O.Non-repudiation"]', ("--objective", "esp"), "less than the minimum"),
        ('minimum = ["esp"]', ("--objective", "native"), "O.Comm_Trusted_Channel"),
        ('minimum = ["nothing"]', (), "nothing"),
        ("", ("--transport", "--network", "10.20.0.0/16"), "--transport"),
        ("", ("--objective", "esp", "--objective", "ah"), "cannot be had together"),
    ],
)
def test_less_than_a_users_minimum_and_contradictions_cost_no_pair(
    office, configured, options, said
):
    extra = office.configure_client(configured)
    before = office.valid_pairs()
    done = office.carnet("connect", *options, extra=extra)
    assert (done.returncode, is_one_sentence(done)) == (2, True), done.stderr
    assert said in done.stderr
    assert office.valid_pairs() == before


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (("--threat", "T.Hack_Comm_Eavesdrop"), "esp"),
        (("--objective", "O.Comm_Trusted_Channel", "--objective", "O.Data_Exchange_Conf"), "esp"),
    ],
)
def test_threats_and_security_objectives_choose_the_least_option(office, options, chosen):
    plan = json.loads(office.carnet("connect", "--dry-run", "--json", *options).stdout)
    assert (plan["objective"], plan["mode"]) == (chosen, "tunnel")


SEEN = "from token_client.nat import behind_nat; import sys; print(behind_nat((sys.argv[1],)))"


@pytest.mark.parametrize(
    ("machine", "url", "seen"),
    [
        ("client", HOST_URL, "True"),
        ("target", HOST_URL, "False"),
        ("client", f"{HOST_URL}/elsewhere", "None"),
        ("client", "http://203.0.113.2:9", "None"),
    ],
)
def test_host_tells_whether_there_is_nat_on_the_way(office, machine, url, seen):
    done = getattr(office.world, machine).run(["python", "-c", SEEN, url])
    assert done.stdout.strip() == seen


def test_host_tells_an_address_and_nothing_else(office):
    told = request(office.world.target, "GET", f"{HOST_URL}/v1/address")
    assert (told.status, told.body) == (200, TARGET_ADDRESS.encode())
    assert request(office.world.target, "POST", f"{HOST_URL}/v1/address", b"?").status == 403


def test_the_papers_tables_and_what_this_machine_can_do(office, lane):
    facts = json.loads(office.carnet("objectives", "--json").stdout)
    here = {option["name"]: option["here"] for option in facts["options"]}
    every = lane is Lane.KERNEL
    assert here == {"native": every, "ah": every, "esp": True, "ah+esp": every}
    office.client_charon.stop()
    silent = office.carnet("objectives")
    office.client_charon.start()
    assert silent.returncode == 0
    assert "Table 3" in silent.stdout
    assert "does not answer" in silent.stdout


def test_who_is_no_member_is_refused_with_the_reason(office):
    office.target("users", "remove", "alice@office")
    done = office.carnet("connect")
    office.admit()
    assert done.returncode == 3
    assert is_one_sentence(done)
    assert "unknown-user" in done.stderr


def test_an_objective_that_is_not_hers_is_refused(office):
    office.target("users", "remove", "alice@office")
    office.target(
        "users", "add", "alice@office", "--objective", "ah", "--network", "10.20.0.0/16",
        "--lifetime", "8h",
    )  # fmt: skip
    done = office.carnet("connect")
    office.target("users", "remove", "alice@office")
    office.admit()
    assert done.returncode == 3
    assert "objective-not-allowed" in done.stderr


@pytest.mark.parametrize("objective", ["ah", "ah+esp", "native", "O.Non-repudiation"])
def test_what_this_machine_cannot_carry_costs_no_pair(office, objective):
    before = office.keys_on(office.world.client)
    done = office.carnet("connect", "--objective", objective)
    assert done.returncode == 5
    assert is_one_sentence(done)
    assert office.keys_on(office.world.client) == before


def test_an_unknown_target_costs_no_pair(office):
    before = office.keys_on(office.world.client)
    done = office.carnet("connect", "elsewhere")
    assert done.returncode == 2
    assert is_one_sentence(done)
    assert office.keys_on(office.world.client) == before


def test_no_secret_is_in_any_file_argument_or_environment(office):
    """The session's own keys too: a test's wrapper hands them out of the Client."""
    known = {name: secret.encode() for name, secret in vars(office.secrets).items()}
    process, revealed = reveal_connect(office)
    assert set(revealed) == {"session_key", "psk", "ppk"}
    places = list(files_below(office.world.directory))
    for machine in office.world.machines:
        places += files_in_memory(machine)
        places += process_places(machine)
    assert any(place.name == "cmdline" for place in places)
    for name, secret in (known | revealed).items():
        for spelling in {secret, secret.hex().encode(), *base64_spellings(secret)}:
            found = [str(place) for place in places if spelling in content(place)]
            assert not found, f"{name} is in {found}"
    process.wait()


def reveal_connect(office):

    reading, writing = os.pipe()
    with pipes({"pin": office.secrets.pin}) as (options, fds):
        process = office.world.client.start(
            ["python", "-m", "tests.lab.revealing_client", str(writing), "connect",
             "--foreground", *options],
            log="revealing.log", pass_fds=[*fds, writing],
        )  # fmt: skip
    os.close(writing)
    process.wait_for_line("The tunnel stands until Ctrl-C")
    revealed = {}
    with os.fdopen(reading) as pipe:
        for _ in range(3):
            name, value = pipe.readline().split()
            revealed[name] = bytes.fromhex(value)
        process.signal(signal.SIGINT)
    return process, revealed


def files_in_memory(machine):
    return files_below(machine.path("/run"))


def process_places(machine):
    proc = machine.path("/proc")
    pids = [path for path in proc.iterdir() if path.name.isdigit()]
    return [pid / name for pid in pids for name in ("cmdline", "environ")]


def content(place):
    try:
        return place.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def base64_spellings(secret):
    return {base64.b64encode(secret).rstrip(b"="), base64.urlsafe_b64encode(secret).rstrip(b"=")}


def test_private_files_are_the_owners_alone(office):
    office.carnet("connect")
    public = {".crt", ".pem", ".txt"}
    for path in office.world.directory.rglob("*"):
        if path.is_dir() or (path.is_file() and path.suffix not in public):
            assert rights(path) & 0o077 == 0, path


def rights(path):
    """Return a file's mode; of one that is gone by now, such as of a key that is burned, none."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(path.stat().st_mode)
    return 0


def test_the_same_bytes_again_get_the_same_answer_and_no_second_tunnel(office):
    heard = eavesdrop(office)
    before = len(office.tunnels())
    answer = request(office.world.client, "POST", f"{HOST_URL}/v1/requests", heard.request)
    assert answer.body == heard.answer
    assert len(office.tunnels()) == before


def eavesdrop(office):
    with Capture(office.world.router) as capture:
        assert office.carnet("connect").returncode == 0
        capture.flush()
        (heard,) = overheard(capture.path, CLIENT_ADDRESS, HOST_ADDRESS, HOST_PORT)
    return heard


def test_every_stranger_gets_the_same_answer(office):
    heard = eavesdrop(office).request
    valid = next(p["key_id"] for p in office.pairs() if p["state"] == "valid")
    spent_key = heard[4:20]
    strange = {
        "other bytes under a spent pair": heard[:-1] + bytes([heard[-1] ^ 1]),
        "a pair that nobody knows": heard.replace(spent_key, secrets.token_bytes(16)),
        "a seal that does not open": heard.replace(spent_key, bytes.fromhex(valid)),
        "no CBOR": b"\xff" * 100,
        "nothing": b"",
        "too much": bytes(9000),
        "another version": b"\x84\x02" + heard[2:],
        "trailing bytes": heard + b"\x00",
        "a suite with five thousand digits": b"\x84\x01\xc2\x59\x08\x00" + bytes([255] * 2048),
        "a pattern that takes long to compile": b"\x84\xd8\x23\x78\x1e(?i)[a-z]" + bytes(40),
    }
    answers = {
        what: request(office.world.client, "POST", f"{HOST_URL}/v1/requests", body)
        for what, body in strange.items()
    }
    for method, path in (("GET", "/v1/requests"), ("POST", "/elsewhere"), ("GET", "/")):
        answers[method + path] = request(office.world.client, method, HOST_URL + path)
    seen = {
        (a.status, tuple(h for h in a.headers if h[0] != "Date"), a.body) for a in answers.values()
    }
    assert len(seen) == 1
    status, _, body = seen.pop()
    assert (status, body) == (403, b"")
    assert office.pairs()[0]["reason"] == "spent"
    assert next(p for p in office.pairs() if p["key_id"] == valid)["state"] == "valid"
