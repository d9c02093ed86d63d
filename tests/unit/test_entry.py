"""Where a command begins: an interrupt while it is still being loaded."""

import os
import signal
import subprocess
import sys
import sysconfig
import threading
from importlib.metadata import distribution, version
from pathlib import Path

import click
import pytest

from carnet import interruption
from carnet.entry import enter
from carnet.running import run_command
from token_client.help_text import TEXT
from tools import help_text

PACKAGES = {
    "token_client": "carnet",
    "helper_agent": "carnet-helper",
    "host_agent": "carnet-host",
    "target_agent": "carnet-target",
    "provisioning": "carnet-provision",
}
ROOT = Path(__file__).parents[2]


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
    assert set(scripts) == set(PACKAGES.values())
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


INTERRUPTING = """
import _signal as signal, runpy, sys
class Interrupting:
    def find_spec(name, path=None, target=None):
        if name not in EXPECTED:
            sys.meta_path.remove(Interrupting)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting)
exec(compile(PROGRAM, "program", "exec"), {"__name__": "__main__"})
"""


def interrupted_at_its_first_import(program, *expected):
    """Run a program; what is expected of it to import is what leads to enter()."""
    named = f"PROGRAM, EXPECTED = {program!r}, {('carnet', 'carnet.entry', *expected)!r}\n"
    # -S: nothing that an installation loads by itself is there already.
    return subprocess.run(
        [sys.executable, "-S", "-c", named + INTERRUPTING],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_an_interrupt_at_the_first_import_of_a_command_is_one_line(package):
    script = Path(sysconfig.get_path("scripts"), PACKAGES[package]).read_text()
    done = interrupted_at_its_first_import(script, package, f"{package}.entry")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == f"{PACKAGES[package]}: interrupted.\n"


@pytest.mark.parametrize(
    ("module", "said"), [("demo", "make demo: interrupted.\n"), ("lab.privilege", "")]
)
def test_an_interrupt_before_the_demonstration_begins_is_no_traceback(module, said):
    # Not root: then even the way to it needs imports.
    run = "import os; os.geteuid = lambda: 1\n"
    run += f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    leading = ("lab", "lab.errors", "demo", "demo.__main__", module)
    done = interrupted_at_its_first_import(run, *leading)
    assert (done.returncode, done.stderr) == (130, said)


LOST = """
import signal, sys
from carnet.entry import enter
from token_client.help_text import TEXT
from tools import help_text

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

class Finder:
    def find_spec(name, path=None, target=None):
        Interrupted()

sys.meta_path.insert(0, Finder)
enter("colorsys", "carnet")
"""


def test_an_interrupt_during_the_imports_is_not_lost_where_python_ignores_what_is_raised():
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "carnet: interrupted.\n")


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["token_client", "connect"], 2),
        (["token_client", "--nosuch"], 2),
        (["token_client", "connect", "--nosuch"], 2),
        (["provisioning", "init"], 2),
        (["provisioning"], 2),
    ],
)
def test_an_error_output_that_takes_nothing_leaves_the_exit_status(argv, status, tmp_path):
    program = "import sys\npackage = sys.argv.pop(1)\n"
    program += "__import__(package + '.entry')\nsys.modules[package + '.entry'].main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, *argv],
            env=os.environ | {"CARNET_CLIENT_CONFIG": str(tmp_path / "none.toml")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
        )
    assert done.returncode == status


def test_the_version_is_told_before_anything_is_imported(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["carnet", "--version"])
    with pytest.raises(SystemExit) as caught:
        enter("a_module_that_is_not_there", "carnet")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"carnet, version {version('carnet')}\n"


def test_the_help_that_is_written_down_is_the_commands():
    assert help_text.told() == TEXT, "run `make help-text`"
    assert TEXT.isascii()


@pytest.fixture
def help_asked_for(monkeypatch, capsys):
    """Asks for help as a process is begun; returns what was told, and by whom."""

    def ask(columns=None):
        def size(_):
            if columns is None:
                raise OSError("no terminal")
            return os.terminal_size((columns, 24))

        def run(module, name):
            print("click")  # noqa: T201

        monkeypatch.setattr(sys, "argv", ["carnet", "--help"])
        monkeypatch.setattr(os, "get_terminal_size", size)
        monkeypatch.setattr("carnet.entry._run", run)
        with pytest.raises(SystemExit) as caught:
            enter("a_module_that_is_not_there", "carnet", "token_client.help_text")
        assert caught.value.code == 0
        return capsys.readouterr().out

    monkeypatch.delenv("COLUMNS", raising=False)
    return ask


@pytest.mark.parametrize("columns", [None, 80, 200])
def test_the_help_is_told_before_anything_is_imported(help_asked_for, columns):
    assert help_asked_for(columns) == TEXT


def test_click_tells_the_help_where_its_lines_would_be_others(help_asked_for, monkeypatch):
    assert help_asked_for(79) == "click\n"
    monkeypatch.setenv("COLUMNS", "60")
    assert help_asked_for() == "click\n"


def test_completion_is_asked_of_click(help_asked_for, monkeypatch):
    monkeypatch.setenv("_CARNET_COMPLETE", "bash_complete")
    assert help_asked_for() == "click\n"


@pytest.mark.parametrize("argv", [["token_client", "--help"], ["provisioning.entry", "--help"]])
def test_an_output_that_takes_nothing_is_one_sentence(argv, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # by which nothing is left to be written
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


def test_a_connect_loads_no_library_that_it_does_not_use_and_has_it_where_it_does():
    program = (
        "import sys; from carnet import entry; entry.import_light('token_client.opening');"
        " print(*sys.modules);"
        " import ssl; from pkcs11.util import ec;"
        " print(ssl.create_default_context().verify_mode.name,"
        " ec.encode_named_curve_parameters('secp256r1').hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded, used = done.stdout.splitlines()
    assert {"_ssl", "asn1crypto", "filelock", "aiohttp", "rich"}.isdisjoint(loaded.split())
    assert used == "CERT_REQUIRED 06082a8648ce3d030107"


WATCHED = """
import sys
from types import ModuleType

from carnet.entry import import_light

import_light("token_client.tunnel_watch")

from carnet.errors import IPsecError
from token_client.tunnel_watch import TunnelWatch


class Gone:
    def watch(self):
        raise IPsecError("The daemon is gone.")


late = type(sys.modules["ssl"]) is not ModuleType
try:
    TunnelWatch(Gone(), None, print, print, resume=False).start()
except IPsecError:
    print(late, type(sys.modules["ssl"]) is ModuleType)
"""


def test_what_is_loaded_late_is_whole_before_several_threads_use_it():
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True True\n", "")


@pytest.mark.usefixtures("signals")
def test_a_system_that_starts_no_thread_is_one_sentence(monkeypatch, capsys):
    @click.command()
    def command():
        before = threading.stack_size(2**46)  # more than there is: the system starts none
        try:
            threading.Thread(target=print).start()
        finally:
            threading.stack_size(before)

    monkeypatch.setattr(sys, "argv", ["carnet"])
    with pytest.raises(SystemExit) as caught:
        run_command(command, "carnet")
    said = capsys.readouterr().err
    assert (caught.value.code, said.count("\n")) == (1, 1)
    assert said.startswith("carnet: This machine starts no thread or program more")


LOADED = """
import gc

class Loop:
    def __del__(self):
        print("taken apart")

def main():
    before = gc.get_stats()
    loop = Loop()
    loop.itself = loop
    kept = [[] for _ in range(20_000)]
    print("looked through" if gc.get_stats() != before else "left alone")
"""


def test_a_command_does_not_look_for_garbage_among_what_it_loads_nor_as_it_ends(tmp_path):
    (tmp_path / "loading_command.py").write_text(LOADED)
    done = subprocess.run(
        [sys.executable, "-c", "import carnet.entry as e; e.enter('loading_command', 'carnet')"],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left alone\n", "")
