"""A TPM and NSS's database have a serial number of zeros, as all others have: none is meant."""

from datetime import date

import click
import pytest
from click.testing import CliRunner

from carnet.errors import UsageError
from carnet.serials import is_own
from host_agent.cli import cli as host_command
from provisioning.cli import cli as officer_command
from provisioning.sheet import Sheet, as_text

NONE = "0000000000000000"
AT_THE_STATION = ("--host", "office", "https://127.0.0.1:9")


def test_zeros_and_blanks_are_nobodys_own():
    assert [is_own(each) for each in (NONE, "", "0 ", "a1", "0001")] == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    ("command", "more"), [(host_command, ()), (officer_command, AT_THE_STATION)]
)
def test_nothing_is_revoked_by_it(command: click.Group, more: tuple[str, ...]):
    argv = ["revoke", "--token-serial", NONE, "--reason", "lost", *more]
    with pytest.raises(UsageError, match="is not one token's"):
        CliRunner().invoke(command, argv, catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize(
    ("serial", "named"), [(NONE, "--user alice@office"), ("a1b2", "--token-serial a1b2")]
)
def test_the_sheet_names_what_is_the_travellers_alone(serial: str, named: str):
    sheet = Sheet(
        label="alice", module=None,
        parameters=None, serial=serial, user_id="alice@office", targets=("work",),
        hosts=("http://host.example",), pairs=1, not_after=None, contact=None, cover_file=None,
        printed=date(2026, 11, 29),
    )  # fmt: skip
    assert f"`carnet-host revoke {named}`" in as_text(sheet)
