"""The journal of a mint in a file: whose it is."""

from types import SimpleNamespace

import msgspec
import pytest

from carnet.errors import UsageError
from carnet.token.identity import Identity
from provisioning import in_file
from provisioning.in_file import FileJournal

LABELS = "carnet 20261123T000000Z "
ORDER = "0f" * 16
LATER = "carnet 20261124T000000Z "
ZEROS = "0000000000000000"


def login(serial, label):
    """A session on a token of which that is known."""
    info = SimpleNamespace(serial=serial, identity=Identity(serial, label))
    return SimpleNamespace(token=SimpleNamespace(info=info), identity=info.identity)


@pytest.fixture
def journal(tmp_path):
    return FileJournal(tmp_path / "cover")


@pytest.mark.parametrize(
    ("token", "other"),
    [(("4711", "alice"), ("0815", "alice")), ((ZEROS, "alice"), (ZEROS, "bob"))],
)
def test_it_is_one_tokens_and_no_others(journal, token, other):
    """All TPMs have the serial number of zeros."""
    journal.begin(login(*token), LABELS, ORDER)
    assert journal.unfinished(login(*token)) == {LABELS: ORDER}
    with pytest.raises(UsageError, match=r"a mint on token alice \(serial"):
        journal.unfinished(login(*other))
    journal.finish(login(*token))
    assert journal.unfinished(login(*other)) == {}


def test_a_card_that_has_a_serial_number_of_its_own_may_be_labelled_anew(journal):
    journal.begin(login("4711", "alice"), LABELS)
    assert journal.unfinished(login("4711", "carol")) == {LABELS: ""}


@pytest.mark.parametrize(
    ("serial", "pairs", "taken"),
    [("4711", [], True), (ZEROS, [f"{LABELS}0001"], True), (ZEROS, [f"{LATER}0001"], False)],
    ids=["a number of its own", "its pairs", "the pairs of another mint"],
)
def test_one_of_an_older_version_is_that_of_the_token_with_its_pairs(
    journal, monkeypatch, serial, pairs, taken
):
    found = SimpleNamespace(pairs=lambda: [SimpleNamespace(label=each) for each in pairs])
    monkeypatch.setattr(in_file, "OneTimeKeys", lambda _: found)
    journal.path.write_bytes(msgspec.json.encode({"labels": LABELS, "token_serial": serial}))
    if taken:
        assert journal.unfinished(login(serial, "alice")) == {LABELS: ""}
    else:
        with pytest.raises(UsageError, match="mint first on the one that has pairs labelled"):
            journal.unfinished(login(serial, "alice"))
    with pytest.raises(UsageError, match="that was cut off"):
        journal.unfinished(login("0815", "alice"))
