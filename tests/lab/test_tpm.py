"""Tokens that store no cover: a TPM, which neither agrees nor wraps, and NSS's softoken.

tpm2-pkcs11 and its resource manager are real, the TPM is swtpm's. The officer sits at the
traveller's machine, since neither can be carried.
"""

import json
import re
import shutil

import pytest

from carnet.token.cryptoki import PARAMETERS_VARIABLE
from carnet.token.finding import MODULE_VARIABLE
from lab.http_client import request
from lab.office import HOST_KEYS, HOST_URL, USER
from lab.tpm import TPM2_PKCS11, Tpm
from tests.lab.offices import FILE, FILE_URL, is_one_sentence, split_office_at_work
from tests.provisioning.tokens import Database

SOFTOKEN = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so"


@pytest.fixture(scope="module")
def office(lane):
    with split_office_at_work(lane) as office:
        yield office


@pytest.fixture(scope="module")
def officer_beside(office):
    place, officer = office.world.client.directory, office.world.officer.directory
    shutil.copytree(officer / ".local/share/carnet/officer", place / "officer")
    shutil.copy(officer / HOST_KEYS, place / HOST_KEYS)
    shutil.copy(place / "officer" / "officer.crt", place / "officer.crt")


@pytest.fixture(scope="module")
def at_the_tpm(office, officer_beside):
    """A TPM that is initialised; return what reaches it."""
    tpm = Tpm(office.world.client)
    reaches = {**tpm.environment_inside, "CARNET_PKCS11_MODULE": TPM2_PKCS11}
    office.command(
        office.world.client, "carnet-provision", "token-init", "--label", "alice", extra=reaches,
        given={"pin": office.secrets.pin, "so-pin": office.secrets.so_pin},
    )  # fmt: skip
    return reaches


INITIALISE = """
import os, sys
from pathlib import Path
from carnet.token.initialise import initialise_token
from carnet.token.module import load_module
module = load_module(Path(sys.argv[1]))
initialise_token(module, label="", so_pin="", pin=os.environ["PIN"], selector="2", force=True)
"""


@pytest.fixture(scope="module")
def at_softoken(office, officer_beside):
    """A database of NSS's that has a PIN; return what reaches it."""
    client = office.world.client
    directory = client.directory / "nss"
    directory.mkdir()
    reaches = {MODULE_VARIABLE: SOFTOKEN, PARAMETERS_VARIABLE: Database(directory).parameters}
    pin = {"PIN": office.secrets.pin}
    office.command(client, "python", "-c", INITIALISE, SOFTOKEN, extra=reaches | pin)
    return reaches


@pytest.fixture(autouse=True)
def disconnected(office):
    yield
    office.carnet("disconnect")


def provision(office, extra, command, *options, check=True, **names):
    place = office.world.client.directory
    given = {"pin": office.secrets.pin}
    if command in {"mint", "adopt"}:
        options += ("--user", USER, "--host-url", HOST_URL, "--target", "work")
        options += ("--host-keys", str(place / HOST_KEYS))
        given["passphrase"] = office.secrets.passphrase
    for name, file in names.items():
        options += (f"--{name.replace('_', '-')}", str(place / file))
    return office.command(
        office.world.client, "carnet-provision", command, *options,
        "--directory", str(place / "officer"), given=given, extra=extra, check=check,
    )  # fmt: skip


def imported(office, batch):
    host = office.world.host.directory
    shutil.copy(office.world.client.directory / batch, host / "alice.batch")
    return office.import_batch()["new"]


def connect(office, extra, *options):
    return office.carnet("connect", *options, extra=extra)


def listed(office, extra, cover):
    done = provision(office, extra, "list", "--json", cover=cover)
    return [pair["key_type"] for pair in json.loads(done.stdout)["pairs"]]


def test_keys_made_on_the_tpm_are_adopted_and_open_a_tunnel(office, at_the_tpm):
    for number in ("01", "02"):
        office.command(
            office.world.client, "pkcs11-tool", "--module", TPM2_PKCS11, "--login",
            "--pin", office.secrets.pin, "--keypairgen", "--key-type", "EC:prime256v1",
            "--label", f"spare {number}", "--id", number, extra=at_the_tpm,
        )  # fmt: skip
    provision(office, at_the_tpm, "adopt", "--label", "spare *", "--count", "2",
              out="spare.batch", cover_out="spare.cover")  # fmt: skip
    assert imported(office, "spare.batch") == 2
    place = office.world.client.directory
    cover = ("--cover", str(place / "spare.cover"))
    done = connect(office, at_the_tpm, *cover)
    assert (done.returncode, is_one_sentence(done)) == (2, True)
    assert "with --officer" in done.stderr
    done = connect(office, at_the_tpm, *cover, "--officer", str(place / "officer.crt"))
    assert done.returncode == 0, done.stderr
    assert request(office.world.client, "GET", FILE_URL).body == FILE
    (spent,) = [pair for pair in office.pairs() if pair["reason"] == "spent"]
    assert spent["custody"] == "split"
    assert listed(office, at_the_tpm, "spare.cover") == ["ec-p256"]


def test_pairs_are_minted_on_the_tpm_and_their_cover_is_a_file(office, at_the_tpm):
    """The token keeps the officer's key, so that the file has to be hers without more."""
    order = ("--custody", "split", "--not-after", "2100-01-01")
    provision(office, at_the_tpm, "mint", *order, "--count", "1", "--key-type", "rsa-2048",
              out="first.batch", cover="alice.cover")  # fmt: skip
    provision(office, at_the_tpm, "mint", *order, "--count", "1",
              out="second.batch", cover="alice.cover")  # fmt: skip
    assert imported(office, "first.batch") == imported(office, "second.batch") == 1
    assert listed(office, at_the_tpm, "alice.cover") == ["rsa-2048", "ec-p256"]
    place = office.world.client.directory
    assert not list(place.glob("*.minting"))
    for left in (["ec-p256"], []):
        done = connect(office, at_the_tpm, "--cover", str(place / "alice.cover"))
        assert done.returncode == 0, done.stderr
        assert request(office.world.client, "GET", FILE_URL).body == FILE
        office.carnet("disconnect")
        assert listed(office, at_the_tpm, "alice.cover") == left


@pytest.mark.parametrize("key_type", ["ec-p256", "rsa-2048"])
def test_pairs_of_softoken_open_a_tunnel_where_an_unfit_token_is_accepted(
    office, at_softoken, key_type
):
    """It keeps no officer's key either: her certificate is named beside the cover.

    The traveller, of whose machine nothing is configured, types what the sheet says.
    """
    order = ("--custody", "split", "--count", "1", "--key-type", key_type, "--accept-unfit-token")
    files = {"out": f"{key_type}.batch", "cover": f"{key_type}.cover"}
    provision(office, at_softoken, "mint", *order, **files)
    assert imported(office, files["out"]) == 1
    sheet = provision(office, at_softoken, "sheet", cover=files["cover"]).stdout
    steps = "(?m)^[0-9]. Run `((?:export|carnet connect) .*?)`"
    told, connecting = re.findall(steps, sheet)
    typed = f'cd "{office.world.client.directory}" && {told} && exec {connecting} "$@"'
    given = {"pin": office.secrets.pin}
    done = office.command(office.world.client, "sh", "-c", typed, "sh", given=given, check=False)
    assert done.returncode == 0, done.stderr
    assert request(office.world.client, "GET", FILE_URL).body == FILE
    assert listed(office, at_softoken, files["cover"]) == []


def test_more_keys_than_the_tpm_holds_for_one_session(office, at_the_tpm):
    """tpm2-abrmd has room for fourteen pairs made, and for 27 keys used, of a mint cut off, too."""
    count = 29

    def minted(extra, check=True):
        return provision(office, extra, "mint", "--custody", "split", "--count", str(count),
                         "--json", out="many.batch", cover="many.cover", check=check)  # fmt: skip

    minted(at_the_tpm | {"CARNET_CRASH_AT": "provision.minted"}, check=False)
    facts = json.loads(minted(at_the_tpm).stdout)
    assert (facts["pairs"], facts["kept_of_earlier_mint"]) == (count, count)
    assert len(listed(office, at_the_tpm, "many.cover")) == count
    provision(office, at_the_tpm, "adopt", "--label", "carnet *", "--count", str(count),
              out="adopted.batch", cover_out="adopted.cover")  # fmt: skip


def test_a_cover_that_is_of_other_keys_or_that_the_tpms_officer_did_not_sign_is_refused(
    office, at_the_tpm
):
    place = office.world.client.directory
    other = place / "alice.cover"  # its pairs are all used
    done = connect(office, at_the_tpm, "--cover", str(other))
    assert (done.returncode, is_one_sentence(done)) == (7, True)
    assert f"{other} is the cover of key pairs of which none is on token alice" in done.stderr
    forged = place / "forged.cover"
    forged.write_bytes((place / "many.cover").read_bytes().replace(b"alice@", b"malic@"))
    done = connect(office, at_the_tpm, "--cover", str(forged))
    assert (done.returncode, is_one_sentence(done)) == (4, True)
    assert "is not what the security officer signed" in done.stderr


def test_a_right_pin_is_not_called_wrong_while_the_tpm_is_locked_out(office, at_the_tpm):
    """Last: the lockout ends by time alone. Its flags say nothing of it."""
    cover = ("--cover", str(office.world.client.directory / "many.cover"))
    for _ in range(4):
        done = office.carnet("connect", *cover, pin="000000", extra=at_the_tpm)
        if "The PIN is wrong" not in done.stderr:
            break
    done = office.carnet("connect", *cover, extra=at_the_tpm)
    assert done.returncode == 4
    assert "takes no PIN now, right or wrong" in done.stderr
    done = office.command(
        office.world.client, "carnet-provision", "unblock", extra=at_the_tpm, check=False,
        given={"so-pin": office.secrets.so_pin, "new-pin": office.secrets.pin},
    )  # fmt: skip
    assert "takes no SO PIN now, right or wrong; wait for the end of its lockout" in done.stderr
