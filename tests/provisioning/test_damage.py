"""Files of the token that are empty or cut short: said, and got rid of."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from lab.waiting import wait_until
from tests.commands import run
from tests.provisioning.test_crashes import in_batch, minted_whole
from tests.provisioning.test_station import CONFIGURATION, HOST
from tests.provisioning.workplace import SECRETS

CARNET = Path(sys.executable).with_name("carnet")
NEW = "415926535897"

# As they stand in SoftHSM2's files: the value of CKA_CLASS, types with their kinds.
DATA, PUBLIC_KEY, PRIVATE_KEY = (bytes.fromhex(f"{number:016}") for number in (0, 2, 3))
CKA_EC_PARAMS = bytes.fromhex("0000000000000180")
CKA_LABEL = bytes.fromhex("00000000000000030000000000000003")

DAMAGES = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "the last bytes missing": lambda whole: whole[:-9],
    "without a name": lambda whole: whole[: whole.index(CKA_LABEL)],
    "without the curve": lambda whole: whole[: whole.find(CKA_EC_PARAMS)],
}


def object_files(workplace, *classes):
    """Return the files of the token's objects of these classes."""
    tokens = workplace.traveller.directory / "tokens"
    return sorted(path for path in tokens.rglob("*.object") if path.read_bytes()[24:32] in classes)


def damage(how, paths):
    for path in paths:
        path.write_bytes(DAMAGES[how](path.read_bytes()))


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_keys_are_said_and_the_token_can_be_minted_on_again(minted, how, every):
    damage(how, object_files(minted, PUBLIC_KEY, PRIVATE_KEY)[::every])
    burn = minted.run("burn", "--all", "--yes", secrets=["pin"])
    assert burn.returncode == 0, burn.stderr
    listed = minted.listed()
    assert listed["pairs"] == listed["damaged_pairs"] == []
    for path in map(Path, listed["damaged_files"]):
        path.unlink()
    (minted.directory / "first").unlink()
    minted.mint()
    minted_whole(minted, "batch")


@pytest.mark.parametrize("how", ["empty", "half", "the last bytes missing", "without a name"])
def test_a_damaged_cover_is_one_sentence_and_an_initialised_token_is_good_again(minted, how):
    damage(how, object_files(minted, DATA))
    said = minted.run("list", secrets=["pin"])
    assert said.returncode in {0, 4}
    assert said.stderr.count("\n") <= 1
    refused = minted.refusal(4, *minted.order(), secrets=["pin", "passphrase"])
    assert "burn them all" in refused or "initialise it anew" in refused
    minted.token_init("--force", "--confirm", "alice")
    (minted.directory / "first").unlink()
    minted.mint()
    minted_whole(minted, "batch")


def test_the_whole_pairs_stay_usable_and_the_others_are_told(minted):
    before = in_batch(minted, "first")
    for path in object_files(minted, PRIVATE_KEY):
        whole = path.read_bytes()
        path.write_bytes(b"")
        listed = minted.listed()
        if len(listed["pairs"]) == 2:
            break
        path.write_bytes(whole)
    assert [pair["key_id"] for pair in listed["pairs"]] == [
        key_id for key_id in before if key_id not in listed["damaged_pairs"]
    ]
    assert len(listed["damaged_pairs"]) == 1
    assert listed["damaged_files"] == [str(path)]
    told = minted.run("list", secrets=["pin"]).stdout
    assert listed["damaged_pairs"][0] in told
    assert str(path) in told


def test_the_doctors_name_files_that_a_full_disk_left_and_work_all_the_same(minted):
    path, *_ = object_files(minted, PUBLIC_KEY)
    left = [path.with_name(f"{number}.object") for number in range(5)]
    for each in left:
        each.write_bytes(b"")
    (minted.directory / "host.toml").write_text(CONFIGURATION.replace('"hsm"', '"alice"'))
    host = [HOST, "--config", minted.directory / "host.toml"]
    for command in ([CARNET], host):
        done = run([*command, "doctor", "--json"], minted.environment)
        said = {one["part"]: one for one in json.loads(done.stdout)}
        token = said["token"]
        assert (token["good"], token["exit_status"]) == (False, 0)
        assert token["sentence"].startswith("alice, serial ")
        assert f"files in {path.parent} are empty or cut short" in token["sentence"]
        assert "(0.object, 1.object, 2.object and 2 more)" in token["sentence"]
        assert said["PIN"]["good"]
    for each in left:
        each.unlink()
    done = run([CARNET, "doctor", "--json"], minted.environment)
    assert {one["part"]: one["good"] for one in json.loads(done.stdout)}["token"]


def token_file(workplace):
    (path,) = (workplace.traveller.directory / "tokens").glob("*/token.object")
    return path


@pytest.mark.parametrize("call", ["ftruncate", "write"])
def test_a_kill_while_softhsm_writes_at_a_login_loses_nothing(minted, call):
    path = token_file(minted)
    killed = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-e", f"trace={call}"]
    killed += ["-e", f"inject={call}:signal=KILL:when=1"]
    before = minted.listed()
    assert minted.run("list", secrets=["pin"], before=killed).returncode != 0
    if call == "write":
        assert path.read_bytes() == b""
    assert minted.listed() == before
    minted.mint(out="second")


def test_a_token_that_a_kill_emptied_and_of_which_there_is_no_copy_is_named(minted):
    path = token_file(minted)
    path.with_name("token.kept").unlink()
    path.write_bytes(b"")
    for command in (["list"], ["token-init", "--label", "alice"]):
        sentence = minted.refusal(4, *command, secrets=["pin"])
        assert str(path) in sentence
        assert "restore it from a backup, or have its pairs revoked" in sentence


def test_the_doctor_names_a_token_that_was_emptied_and_what_to_do(minted):
    path = token_file(minted)
    path.with_name("token.kept").unlink()
    path.write_bytes(b"")
    done = run([CARNET, "doctor", "--json"], minted.environment)
    assert done.returncode == 4
    first, *_ = [each for each in json.loads(done.stdout) if not each["good"]]
    assert first["part"] == "module"
    assert f"{path} is empty or cut short" in first["sentence"]
    assert "restore it from a backup, or have its pairs revoked" in first["sentence"]
    assert "Traceback" not in done.stderr


def test_a_token_that_was_emptied_keeps_nobody_from_the_others(minted):
    path = token_file(minted)
    minted.token_init(label="bob")
    path.with_name("token.kept").unlink()
    path.write_bytes(b"")
    done = minted.run("list", "--token", "bob", "--json", secrets=["pin"])
    assert (done.returncode, json.loads(done.stdout)["pairs"]) == (0, [])
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"carnet: {path} is empty or cut short")
    done = run([CARNET, "doctor", "--json"], minted.environment)
    module, *_ = json.loads(done.stdout)
    assert (module["part"], module["good"]) == ("module", False)
    assert module["sentence"].startswith(f"{path} is empty or cut short")


def test_an_object_at_which_softhsm_would_end_the_program_is_named(minted):
    (path, *_) = object_files(minted, PUBLIC_KEY)
    whole = path.read_bytes()
    length = whole.index(CKA_LABEL) + len(CKA_LABEL)
    path.write_bytes(whole[:length] + b"\xff" + whole[length + 1 :])
    sentence = minted.refusal(4, "list", secrets=["pin"])
    assert f"{path} is garbled" in sentence
    assert f"any token in {path.parents[1]}; restore it from a backup, or move it away." in sentence
    done = run([CARNET, "doctor", "--json"], minted.environment)
    assert done.returncode == 4
    assert f"{path} is garbled" in done.stdout
    path.unlink()
    minted.listed()


def test_a_copy_of_a_token_beside_it_is_named(minted):
    directory = token_file(minted).parent
    copy = directory.with_name(f"{directory.name}-copy")
    shutil.copytree(directory, copy)
    sentence = minted.refusal(4, "list", secrets=["pin"])
    assert f"{directory} and {copy} are one token" in sentence
    assert "move the copy away" in sentence
    shutil.rmtree(copy)
    minted.listed()


def test_a_host_does_not_start_with_a_token_that_was_emptied(minted):
    path = token_file(minted)
    path.with_name("token.kept").unlink()
    path.write_bytes(b"")
    (minted.directory / "host.toml").write_text(CONFIGURATION.replace('"hsm"', '"alice"'))
    (minted.directory / "state").mkdir(mode=0o700)
    link = ["certificates", "host", "office", "--out", minted.directory / "host-link"]
    assert minted.run(*link, secrets=["passphrase"]).returncode == 0
    environment = minted.environment | {"CARNET_PIN": SECRETS["pin"]}
    host = [HOST, "--config", minted.directory / "host.toml"]
    # It would wait for a token that is only away.
    done = run([*host, "serve"], environment, before=["timeout", "60"])
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith(f"carnet-host: {path} is empty or cut short")
    done = run([*host, "doctor", "--json"], environment)
    assert done.returncode == 4
    assert f"{path} is empty or cut short" in done.stdout


def test_the_copy_has_no_more_readers_than_the_file_and_follows_the_pin(minted):
    path = token_file(minted)
    copy = path.with_name("token.kept")
    assert copy.stat().st_mode & 0o777 == 0o600
    minted.facts("change-pin", secrets=["pin", "new-pin"], new_pin=NEW)
    assert copy.read_bytes()[8:] == path.read_bytes()[8:]


KILLED = """
import os, signal, sys
from carnet.token import pins
from provisioning.entry import main

def and_then_killed(change):
    def change_and_die(*given, **named):
        change(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return change_and_die

pins.change_pin = and_then_killed(pins.change_pin)
pins.unblock_with_so_pin = and_then_killed(pins.unblock_with_so_pin)
del sys.argv[0]
main()
"""


@pytest.mark.parametrize(("command", "by"), [("change-pin", "pin"), ("unblock", "so-pin")])
def test_the_copy_follows_the_pin_also_where_the_command_is_killed_at_once(minted, command, by):
    path = token_file(minted)
    copy, before = path.with_name("token.kept"), minted.listed()["pairs"]
    killed = [sys.executable, "-c", KILLED]
    done = minted.run(command, secrets=[by, "new-pin"], before=killed, new_pin=NEW)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: copy.read_bytes()[8:] == path.read_bytes()[8:], "the copy to be renewed")
    path.write_bytes(copy.read_bytes())  # what a thief would do who knows the old one
    assert "PIN is wrong" in minted.refusal(4, "list", secrets=["pin"])
    assert minted.facts("list", secrets=["pin"], pin=NEW)["pairs"] == before


def test_a_copy_that_cannot_be_renewed_is_removed(minted):
    path = token_file(minted)
    copy = path.with_name("token.kept")
    full = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync"]
    full += ["-e", "inject=fsync:error=ENOSPC"]
    done = minted.run("change-pin", secrets=["pin", "new-pin"], new_pin=NEW, before=full)
    assert done.returncode == 0, done.stderr
    assert not copy.exists()
    minted.facts("list", secrets=["pin"], pin=NEW)
    assert copy.read_bytes()[8:] == path.read_bytes()[8:]
