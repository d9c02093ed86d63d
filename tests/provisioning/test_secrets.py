"""The PIN, the SO PIN and the passphrase are nowhere but where they were typed."""

import signal
from pathlib import Path

from tests.provisioning.test_interruption import BOTH, until_some_are_minted
from tests.provisioning.workplace import SECRETS


def found_in(data):
    return [name for name, secret in SECRETS.items() if secret.encode() in data]


def test_no_file_and_no_output_holds_a_secret(ready):
    ready.facts(
        *("certificates", "host", "office", "--out", ready.directory / "link"),
        secrets=["passphrase"],
    )
    ready.mint()
    ready.refusal(4, "list", secrets=["pin"], pin="000000")
    ready.facts("burn", "--all", "--yes", secrets=["pin"])
    files = [path for path in ready.directory.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if found_in(path.read_bytes())] == []
    assert found_in("".join(ready.outputs).encode()) == []


def test_no_argument_and_no_variable_of_a_process_holds_a_secret(ready):
    with ready.start(*ready.order(count=500), "--progress", secrets=BOTH) as process:
        until_some_are_minted(process)
        process.send_signal(signal.SIGSTOP)
        proc = Path("/proc", str(process.pid))
        assert b"mint" in (proc / "cmdline").read_bytes()
        for name in ("cmdline", "environ"):
            assert found_in((proc / name).read_bytes()) == []
        children = (proc / "task" / str(process.pid) / "children").read_text()
        assert children == ""
        process.kill()
        process.communicate()
