"""Where a command begins: an interrupt while it is still being loaded."""

import sys
from importlib.metadata import distribution

import pytest

from carnet.entry import enter

COMMANDS = {"carnet", "carnet-host", "carnet-target", "carnet-provision"}


def test_every_command_begins_where_an_interrupt_is_heard():
    scripts = {
        script.name: script.value
        for script in distribution("carnet").entry_points
        if script.group == "console_scripts"
    }
    assert set(scripts) == COMMANDS
    assert all(value.endswith(".entry:main") for value in scripts.values())


def test_an_interrupt_during_the_imports_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "interrupted_command.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as caught:
        enter("interrupted_command", "carnet")
    assert caught.value.code == 130
    assert capsys.readouterr().err == "carnet: interrupted.\n"
    assert "interrupted_command" not in sys.modules
