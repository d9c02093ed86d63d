"""Plugging in and pulling out, on a tunnel that really stands."""

import json
import shutil
import signal

import pytest

from lab.http_client import request
from lab.office import pipes
from lab.readers import OPENSC, Card, CardReaders
from lab.waiting import wait_until
from tests.lab.offices import FILE, FILE_URL, is_one_sentence, office_at_work

BOB = {"pin": "11112222", "so-pin": "33334444"}
CARD = "00112233445566778899aabbccddeeff"

AT = """
import os, signal, sys
from pathlib import Path
from carnet import crash
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
def interrupt_twice():
    interrupt()
    interrupt()
def close():
    raise BrokenPipeError
def have_no_process():
    from types import SimpleNamespace
    from token_client import background, heir
    def start(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    heir.subprocess = background.subprocess = SimpleNamespace(Popen=start, DEVNULL=None, PIPE=None)
def fail_to_list():
    from carnet.errors import TokenError
    from token_client.booklet import Booklet
    def usable(_):
        raise TokenError("The token failed.")
    Booklet.usable = usable
def keep_secrets():
    from carnet.errors import DaemonSilentError
    from carnet.ipsec.strongswan import StrongSwan
    def forget(*_):
        raise DaemonSilentError("The daemon does not answer.")
    StrongSwan.forget_secrets = forget
def disconnect():
    import subprocess
    subprocess.run(["carnet", "disconnect"], check=True)
def pull():
    plug = Path.home() / ".local/share/carnet/softhsm"
    tokens = plug.resolve() / "tokens"
    plug.unlink()
    tokens.rename(tokens.with_name("away"))
place, happens = sys.argv.pop(1), globals()[sys.argv.pop(1)]
crash.reach = lambda reached: happens() if reached == place else None
from token_client.sessions import SessionStore
keep = SessionStore.keep_pairs_left
def keep_pairs_left(*given):
    crash.reach("pairs.counted")
    keep(*given)
SessionStore.keep_pairs_left = keep_pairs_left
from token_client.cli import main
main()
"""
"""`carnet`, to which something happens at a place of carnet.crash."""


@pytest.fixture(scope="module")
def office(lane):
    with office_at_work(lane, pairs=44) as made:
        yield made


@pytest.fixture(autouse=True)
def plugged_in(office):
    yield
    take_out(office)
    office.plug_in(office.world.client)
    office.carnet("disconnect")
    wait_until(lambda: agents(office) == [], "the end of the agents")


@pytest.fixture(scope="module")
def other(office):
    """Bob's token, in a directory of its own."""
    client = office.world.client
    directory = client.directory / "bob"
    office.command(
        client, "carnet-provision", "token-init", "--label", "bob",
        given=BOB, extra={"CARNET_SOFTHSM_DIR": str(directory)},
    )  # fmt: skip
    return directory


def plug(office):
    return office.world.client.directory / ".local/share/carnet/softhsm"


def take_out(office):
    plug(office).unlink(missing_ok=True)


def carries(office):
    return request(office.world.client, "GET", FILE_URL).body == FILE


def records(office):
    return json.loads(office.carnet("status", "--json").stdout)


def agents(office):
    """Return the background agents' processes: the machine's process id, whether worker."""
    parents = {}
    for process in office.world.client.path("/proc").iterdir():
        try:
            words = arguments_of(process)
            if b"agent" in words and b"token_client" in words:
                after_its_name = (process / "stat").read_text().rpartition(")")[2].split()
                parents[int(process.name)] = int(after_its_name[1])
        except (OSError, ValueError, IndexError):
            continue
    return sorted((pid, parent in parents) for pid, parent in parents.items())


def arguments_of(process):
    """Return a process's arguments; one that is being started has none yet for a moment."""
    arguments = []

    def look():
        arguments[:] = (process / "cmdline").read_bytes().split(b"\0")
        return arguments != [b""] or has_none(process)

    wait_until(look, "a process to have its arguments")
    return arguments


def has_none(process):
    """Tell whether it has ended or is the kernel's own: neither has a program."""
    try:
        (process / "exe").readlink()
    except FileNotFoundError:
        return True
    return False


def kill_worker(office, number):
    """Kill the worker of the agent, from inside; return its process id."""
    pid = worker(office)
    signal_inside(office, pid, number)
    return pid


def signal_inside(office, pid, number):
    """Send a signal by the shell: a small machine has no program that does only that."""
    office.world.client.run(["sh", "-c", f"kill -{number:d} {pid}"])


def watchers(office):
    """Wait for the agent and its worker, each by now a program of its own; return both."""
    found = []

    def look():
        found[:] = agents(office)
        return sorted(work for _, work in found) == [False, True]

    wait_until(look, "the agent and its worker")
    return found


KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


def worker(office):
    return next(pid for pid, work in watchers(office) if work)


def watching(office):
    """Wait until the tunnel is watched: who looks at its token hears of its daemon by then."""
    loaded = office.world.client.path(f"/proc/{worker(office)}/maps")
    wait_until(lambda: "softhsm" in loaded.read_text(), "the worker to have its module")


def stay(office, text=""):
    extra = office.configure_client(text) if text else None
    process = office.start_connect("--foreground", extra=extra)
    process.wait_for_line("The tunnel stands until Ctrl-C")
    assert carries(office)
    return process


def test_a_token_that_is_plugged_in_late_connects(office):
    take_out(office)
    process = office.start_connect("--wait")
    process.wait_for_line("Waiting for a token; plug it in")
    office.plug_in(office.world.client)
    assert process.wait(60) == 0
    assert carries(office)


def test_waiting_for_one_token_passes_over_another(office, other):
    take_out(office)
    process = office.start_connect("--wait", "--token", "alice")
    process.wait_for_line("Waiting for token alice")
    plug(office).symlink_to(other)
    process.wait_for_line(r"Token bob \(serial \w+\) is not the one waited for")
    take_out(office)
    office.plug_in(office.world.client)
    assert process.wait(60) == 0
    assert process.output().count("Token bob") == 1
    assert carries(office)


def test_waiting_by_serial_number(office, other):
    listed = office.facts(office.world.client, "carnet", "tokens")
    take_out(office)
    process = office.start_connect("--wait", "--dry-run", "--token", listed[0]["serial"])
    process.wait_for_line("Waiting for token " + listed[0]["serial"])
    office.plug_in(office.world.client)
    assert process.wait() == 0


def test_waiting_ends_with_ctrl_c(office):
    take_out(office)
    process = office.start_connect("--wait")
    process.wait_for_line("Waiting for a token")
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.output().split("\n", 1)[1].strip() == "carnet: interrupted."


def test_a_token_that_is_there_is_not_waited_for(office):
    done = office.carnet("connect", "--wait", "--dry-run")
    assert done.returncode == 0
    assert done.stderr == ""


def test_pulling_the_token_ends_the_tunnel(office):
    process = stay(office)
    take_out(office)
    assert process.wait() == 4
    last = process.output().splitlines()[-1]
    assert last.startswith("carnet: Token alice was pulled out, so the tunnel to work was ended")
    assert not carries(office)
    assert records(office) == []


def test_pulling_the_token_keeps_the_tunnel_where_that_is_configured(office):
    process = stay(office, 'on_removal = "keep"\n')
    take_out(office)
    process.wait_for_line("Token alice was pulled out; the tunnel to work stays, as configured")
    assert carries(office)
    office.plug_in(office.world.client)
    process.wait_for_line("Token alice is back")
    process.signal(signal.SIGINT)
    assert process.wait() == 0


def test_another_token_in_its_place_is_not_the_token(office, other):
    process = stay(office, 'on_removal = "keep"\n')
    take_out(office)
    plug(office).symlink_to(other)
    process.wait_for_line("Token alice was pulled out")
    take_out(office)
    office.plug_in(office.world.client)
    process.wait_for_line("Token alice is back")


def test_pulling_the_token_locks_the_screen_where_that_is_configured(office):
    locked = office.world.client.directory / "locked"
    process = stay(office, f'on_removal = "lock"\nlock_command = ["touch", "{locked}"]\n')
    take_out(office)
    process.wait_for_line("was pulled out; screen locked, the tunnel to work stays")
    assert locked.exists()
    assert carries(office)


@pytest.mark.parametrize(
    ("command", "why"), [('["false"]', "false ended with 1"), ('["/nowhere/lock"]', "No such file")]
)
def test_a_screen_that_cannot_be_locked_ends_the_tunnel(office, command, why):
    process = stay(office, f'on_removal = "lock"\nlock_command = {command}\n')
    take_out(office)
    assert process.wait() == 4
    assert why in process.output()
    assert not carries(office)


def test_the_background_agent_ends_the_tunnel(office):
    assert office.carnet("connect").returncode == 0
    assert carries(office)
    take_out(office)
    wait_until(lambda: agents(office) == [], "the end of the agent", 30)
    assert not carries(office)
    (record,) = records(office)
    assert record["ended"].startswith("Token alice was pulled out")
    assert "ended: Token alice was pulled out" in office.carnet("status").stdout
    office.carnet("disconnect")
    assert records(office) == []


def lock_by(office, *command):
    """Have the agent lock the screen by a command; return what has a command say so."""
    return office.configure_client(f'on_removal = "lock"\nlock_command = {json.dumps(command)}\n')


def test_the_background_agent_locks_the_screen_where_that_is_configured(office):
    locked = office.world.client.directory / "locked-by-the-agent"
    extra = lock_by(office, "touch", str(locked)) | office.hear()
    assert office.carnet("connect", extra=extra).returncode == 0
    take_out(office)
    wait_until(locked.exists, "the lock")
    wait_until(office.heard, "the agent to say so")
    assert "was pulled out; screen locked, the tunnel to work stays" in office.heard()
    assert carries(office)
    office.plug_in(office.world.client)
    wait_until(lambda: "Token alice is back" in office.heard(), "the agent to see it")
    assert worker(office)


def test_the_background_agent_that_cannot_lock_the_screen_ends_the_tunnel(office):
    assert office.carnet("connect", extra=lock_by(office, "false")).returncode == 0
    take_out(office)
    wait_until(lambda: agents(office) == [], "the end of the agent")
    assert not carries(office)
    assert "the screen cannot be locked (false ended with 1)" in records(office)[0]["ended"]


def test_the_background_agent_ends_a_tunnel_whose_record_is_gone(office):
    """As when the directory of a user goes with the last logout."""
    assert office.carnet("connect").returncode == 0
    watchers(office)
    shutil.rmtree(office.world.client.path("/run/carnet-client"))
    assert carries(office)
    take_out(office)
    wait_until(lambda: agents(office) == [], "the end of the agent", 30)
    assert not carries(office)
    assert records(office) == []


def test_the_agent_ends_with_the_tunnel(office):
    assert office.carnet("connect").returncode == 0
    worker(office)
    office.carnet("disconnect")
    wait_until(lambda: agents(office) == [], "the end of the agent")


def test_a_command_that_is_killed_in_step_nine_leaves_no_tunnel_unwatched(office):
    dying = office.start_connect(extra={"CARNET_CRASH_AT": "client.established"})
    assert dying.wait(60) in KILLED
    watching(office)
    wait_until(lambda: not records(office)[0]["unseen"], "the agent's look at the tunnel")
    assert carries(office)
    take_out(office)
    wait_until(lambda: agents(office) == [], "the end of the agent", 30)
    assert not carries(office)


def test_where_the_configuration_wants_no_agent_there_is_none(office):
    extra = office.configure_client("agent = false\n")
    assert office.carnet("connect", extra=extra).returncode == 0
    assert agents(office) == []
    take_out(office)
    assert carries(office)


def test_an_agent_that_crashes_is_started_again(office):
    """And its worker watches on where what would start it is killed; nobody beside it does."""
    assert office.carnet("connect").returncode == 0
    first = kill_worker(office, signal.SIGSEGV)
    wait_until(lambda: worker(office) != first, "another worker")
    assert carries(office)
    supervisor, second = (pid for pid, _ in sorted(watchers(office), key=lambda one: one[1]))
    signal_inside(office, supervisor, signal.SIGKILL)
    wait_until(lambda: agents(office) == [(second, False)], "its worker alone")
    assert records(office)[0]["watched"]
    assert office.carnet("resume").returncode == 0
    wait_until(lambda: len(agents(office)) == 1, "the end of who finds it watched")
    take_out(office)
    wait_until(lambda: agents(office) == [], "the end of the agent", 30)
    assert not carries(office)


def test_stopping_the_agent_ends_no_tunnel(office):
    assert office.carnet("connect").returncode == 0
    supervisor = next(pid for pid, work in watchers(office) if not work)
    signal_inside(office, supervisor, signal.SIGTERM)
    wait_until(lambda: agents(office) == [], "the end of the agent")
    assert carries(office)


def test_an_agent_that_cannot_watch_ends_the_tunnel(office):
    extra = office.configure_client("patience = 60\n")
    assert office.carnet("connect", extra=extra).returncode == 0
    watching(office)
    office.configure_client('module = "/nowhere/module.so"\n')
    kill_worker(office, signal.SIGKILL)
    wait_until(lambda: agents(office) == [], "the end of the agent", 60)
    assert not carries(office)
    assert "failed again and again" in records(office)[0]["ended"]


def test_an_agent_needs_to_know_which_tunnel(office):
    done = office.carnet("agent")
    assert done.returncode == 2
    assert is_one_sentence(done)


def pull_for_good(office):
    """Pull the token under a session that is open: SoftHSM2 knows its files by their path."""
    take_out(office)
    tokens = office.world.token / "tokens"
    tokens.rename(tokens.with_name("away"))


def put_back(office):
    away = office.world.token / "away"
    away.rename(away.with_name("tokens"))
    office.plug_in(office.world.client)


def begin_without_host(office, *options):
    """Start a connection whose answer does not come; return it once the request is sent."""
    office.host_agent.stop()
    process = office.start_connect(*options)
    process.wait_for_line("no answer yet")
    return process


def test_a_token_pulled_in_the_middle_is_taken_back_and_no_other(office, other):
    before = office.valid_pairs()
    process = begin_without_host(office, "--wait")
    pull_for_good(office)
    office.host_agent = office.serve_host()
    process.wait_for_line("Token alice was pulled out; plug it in again to go on")
    plug(office).symlink_to(other)
    process.wait_for_line("Token bob .* is not the one waited for, and is left alone")
    take_out(office)
    put_back(office)
    assert process.wait(60) == 0
    assert office.valid_pairs() == before - 1
    assert carries(office)


def test_a_token_pulled_in_the_middle_costs_no_further_pair(office):
    before = office.valid_pairs()
    process = begin_without_host(office)
    pull_for_good(office)
    office.host_agent = office.serve_host()
    assert process.wait(60) == 4
    assert "Token alice was pulled out, in the middle" in process.output().splitlines()[-1]
    put_back(office)
    assert office.carnet("connect").returncode == 0
    assert office.valid_pairs() == before - 1


def connect_and(office, place, happens, text):
    extra = office.configure_client(text)
    with pipes({"pin": office.secrets.pin}) as (options, fds):
        argv = ["python", "-c", AT, place, happens, "connect", *options]
        return office.world.client.run(argv, extra=extra, pass_fds=fds, check=False)


def test_a_token_pulled_once_the_tunnel_stands_leaves_it_as_configured(office):
    done = connect_and(office, "client.done", "pull", 'on_removal = "keep"\n')
    put_back(office)
    assert done.returncode == 0, done.stderr
    assert f"{office.valid_pairs()} key pairs left" in done.stdout
    assert carries(office)


def test_what_another_command_ends_as_it_comes_up_is_not_said_to_stand(office):
    done = connect_and(office, "client.done", "disconnect", "")
    assert done.returncode == 5
    assert "Connected to" not in done.stdout
    assert done.stderr.endswith(
        "carnet: The tunnel to work was ended as it came up, by another command;"
        " run `carnet connect` for a new one.\n"
    )
    assert not carries(office)
    wait_until(lambda: agents(office) == [], "the end of the agent")


def test_a_token_pulled_once_the_tunnel_stands_is_noticed_by_the_agent(office):
    done = connect_and(office, "client.done", "pull", "")
    wait_until(lambda: agents(office) == [], "the end of the agent", 30)
    put_back(office)
    assert done.returncode == 0, done.stderr
    assert not carries(office)
    assert records(office)[0]["ended"].startswith("Token alice was pulled out")


@pytest.mark.parametrize(("happens", "status"), [("interrupt", 130), ("close", 1)])
def test_what_is_cut_off_as_its_tunnel_comes_up_leaves_none(office, happens, status):
    done = connect_and(office, "client.established", happens, "")
    assert done.returncode == status
    assert records(office) == []
    assert not carries(office)


def test_an_interrupt_while_ike_goes_on_is_told_what_it_may_cost(office):
    done = connect_and(office, "ipsec.initiated", "interrupt", "")
    assert done.returncode == 130
    assert done.stderr.strip() == (
        "carnet: interrupted; the tunnel that was coming up was ended, and the next"
        " `carnet connect` tells whether its key pair is lost."
    )


def test_a_tunnel_whose_secrets_cannot_be_forgotten_is_watched_over(office):
    done = connect_and(office, "client.established", "keep_secrets", "resume = false\n")
    assert done.returncode == 0, done.stderr
    assert "may stay in the IPsec daemon until it ends (The daemon does not" in done.stdout
    assert worker(office)


@pytest.fixture
def nothing_pending(office):
    """No request of an earlier test is taken up: the next pair that is burned has a tunnel."""
    assert office.carnet("connect").returncode == 0
    office.carnet("disconnect")


@pytest.mark.usefixtures("nothing_pending")
def test_an_interrupt_once_the_tunnel_stands_is_told_that(office):
    done = connect_and(office, "client.burned", "interrupt", "")
    assert done.returncode == 130
    assert done.stderr.strip() == (
        "carnet: interrupted; the tunnel stands already, and `carnet disconnect` ends it."
    )
    assert carries(office)
    assert worker(office)


@pytest.mark.usefixtures("nothing_pending")
@pytest.mark.parametrize("place", ["client.burned", "pairs.counted"])
def test_the_second_interrupt_ends_the_tunnel_and_says_so(office, place):
    done = connect_and(office, place, "interrupt_twice", "")
    assert done.returncode == 130
    assert done.stderr.strip() == (
        "carnet: interrupted; the tunnel that stood was ended, and its key pair opens no other."
    )
    assert records(office) == []
    assert not carries(office)


def test_a_second_signal_does_not_keep_the_tunnel_from_ending(office):
    """A terminal that closes sends two, and who is impatient more."""
    process = stay(office)
    process.signal(signal.SIGINT)
    while process.running:
        process.signal(signal.SIGHUP)
    assert records(office) == []
    assert not carries(office)


def test_an_output_that_takes_nothing_leaves_no_tunnel_unwatched(office):
    with pipes({"pin": office.secrets.pin}) as (options, fds):
        argv = ["sh", "-c", 'exec "$@" >/dev/full', "sh", "carnet", "connect", "--json", *options]
        done = office.world.client.run(argv, pass_fds=fds, check=False)
    assert done.returncode == 1
    assert "The tunnel stands already, and `carnet disconnect` ends it." in done.stderr
    assert worker(office)


@pytest.mark.usefixtures("nothing_pending")
def test_an_agent_that_cannot_be_started_leaves_no_tunnel(office):
    done = connect_and(office, "client.prepared", "have_no_process", "")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "The tunnel that stood was ended, and its key pair opens no other.",
        (
            "carnet: The agent that watches over the tunnel cannot be started (Resource "
            "temporarily unavailable); end other programs, or have none by `agent = false` in "
            "client.toml."
        ),
    ]
    assert records(office) == []
    assert not carries(office)


@pytest.mark.usefixtures("nothing_pending")
def test_a_token_that_does_not_tell_what_is_left_costs_no_tunnel(office):
    done = connect_and(office, "client.burned", "fail_to_list", "")
    assert done.returncode == 0, done.stderr
    assert "How many key pairs are left the token did not tell" in done.stdout
    assert carries(office)
    assert worker(office)


@pytest.fixture
def card(office):
    """A card in a real reader, in place of the token of a tunnel that stands."""
    readers = CardReaders(office.world.client)
    readers.start()
    card = Card(office.world.client, 0, "alice")
    card.become(CARD)
    card.insert()
    yield card, readers
    card.remove()
    readers.stop()
    shutil.rmtree(office.world.client.directory / "reader.conf.d")
    shutil.rmtree(office.world.client.path("/run/pcscd"))


def stand_on_card(office, text=""):
    """Have a tunnel whose record says that it stands on the card, and watch over it."""
    extra = office.configure_client(f'module = "{OPENSC}"\n{text}')
    alone = office.configure_client("agent = false\n")
    assert office.carnet("connect", extra=alone).returncode == 0
    office.configure_client(f'module = "{OPENSC}"\n{text}')
    (record,) = office.world.client.path("/run/carnet-client").glob("session-*.json")
    facts = json.loads(record.read_text()) | {"token_serial": CARD[16:], "token_label": "alice"}
    record.write_text(json.dumps(facts))
    return office.world.client.start(
        ["carnet", "agent", "work", "--worker"], log=f"agent-{facts['name']}.log", extra=extra
    )


def test_a_card_pulled_from_its_reader_ends_the_tunnel(office, card):
    process = stand_on_card(office)
    assert carries(office)
    card[0].remove()
    assert process.wait() == 0
    assert "Token alice was pulled out, so the tunnel" in process.output()
    assert not carries(office)


def test_a_card_outlives_a_restart_of_pcscd(office, card):
    process = stand_on_card(office, 'on_removal = "keep"\n')
    card[0].seen()
    wait_until(card[0].seen, "the agent to read the card")
    card[1].kill()
    card[1].start()
    # The card went with the service; whether that was away at a look is a matter of moments.
    process.wait_for_line("Token alice (was pulled out|cannot be seen.*); the tunnel to work stays")
    card[0].insert()
    process.wait_for_line("Token alice is back")
    process.signal(signal.SIGINT)
    process.wait()
