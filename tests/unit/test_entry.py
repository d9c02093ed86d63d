"""Where a command begins: an interrupt while it is still being loaded."""

import signal
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

from carnet import interruption
from carnet.entry import enter

COMMANDS = {"carnet", "carnet-helper", "carnet-host", "carnet-target", "carnet-provision"}


@pytest.fixture
def signals():
    """What a command leaves of them at its end is not for this process."""
    before = {each: signal.getsignal(each) for each in interruption.SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def test_every_command_begins_where_an_interrupt_is_heard():
    scripts = {
        script.name: script.value
        for script in distribution("carnet").entry_points
        if script.group == "console_scripts"
    }
    assert set(scripts) == COMMANDS
    assert all(value.endswith(".entry:main") for value in scripts.values())


@pytest.mark.usefixtures("signals")
def test_an_interrupt_during_the_imports_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "interrupted_command.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as caught:
        enter("interrupted_command", "carnet")
    assert caught.value.code == 130
    assert capsys.readouterr().err == "carnet: interrupted.\n"
    assert "interrupted_command" not in sys.modules


def test_the_version_is_told_before_anything_is_imported(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["carnet", "--version"])
    with pytest.raises(SystemExit) as caught:
        enter("a_module_that_is_not_there", "carnet")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"carnet, version {version('carnet')}\n"


@pytest.mark.parametrize("argv", [["token_client", "--help"], ["provisioning.entry", "--help"]])
def test_an_output_that_takes_nothing_is_one_sentence(argv):
    program = "import sys; from importlib import import_module as load\n"
    program += "name = sys.argv.pop(1)\nload(name + '.entry' if '.' not in name else name).main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, *argv],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Cannot use the output: No space left on device; make room" in done.stderr


def test_where_standard_input_is_closed_there_is_nobody_to_ask():
    program = "from provisioning.entry import main; main()"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-c", program, "init"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no terminal to ask" in done.stderr
    for source in ("--passphrase-fd", "--passphrase-file", "CARNET_OFFICER_PASSPHRASE"):
        assert source in done.stderr
    assert "Traceback" not in done.stderr


def test_the_officers_command_waits_for_nothing_that_it_does_not_need():
    program = "import sys, provisioning.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert {"pkcs11", "aiohttp", "fpdf", "rich"}.isdisjoint(done.stdout.split())
