"""Programs that are impatient with a pcscd, each in a process of its own with its readers."""

import os
import subprocess
import sys
from pathlib import Path

from lab.readers import OPENSC, CardReaders

IMPATIENT = """
import sys
from carnet.token import frozen
frozen._PATIENCE_SECONDS, frozen._ANSWER_SECONDS = 0.2, 2.0
"""
COMMAND = """
from token_client.cli import main
sys.argv = ["carnet", *sys.argv[1:]]
main()
"""
HOST_COMMAND = """
from host_agent.cli import main
sys.argv = ["carnet-host", *sys.argv[1:]]
main()
"""
SERVING = (
    """
from host_agent import hsm_service
hsm_service.START_SECONDS = hsm_service.OPERATION_SECONDS = 0.5
"""
    + HOST_COMMAND
)
SERVED = """
name = "office"
listen = "127.0.0.1"
port = {port}
directory = "."
officer = "authority.crt"
[token]
module = "{module}"
[observation]
listen = "off"
[link]
certificate = "host.crt"
key = "host.key"
authority = "authority.crt"
[targets.work]
url = "https://127.0.0.1:1"
"""
LOOK_ONCE = """
from carnet.errors import TokenError
from tests.unit.test_watch import SESSION, FakeDriver
from token_client import background, watch
from token_client.config import ClientConfig, OnRemoval
watch.UNSEEN_SECONDS = 1.0
background.end_session = lambda driver, sessions, name: print("ended", name)
config = ClientConfig(on_removal=OnRemoval(sys.argv[1]))
try:
    background.look_once(FakeDriver(), SESSION, config, print)
except TokenError as error:
    print(error.sentence)
"""
KEY_IN_USE = """
from contextlib import contextmanager
from types import SimpleNamespace
from carnet.token.readers import look_at_readers
from token_client import plugging
@contextmanager
def standing_still(*_):
    yield look_at_readers()
plugging.open_booklet = standing_still
plug = object.__new__(plugging.Plug)
plug._lookout = SimpleNamespace(
    look=lambda: plugging.Presence.HERE, reader=None, token="token", alike=False
)
plug._config, plug.identity = None, "0123"
plug._pulled = lambda token: print("pulled", token, flush=True)
plug.use(None, print)
"""
WATCH = """
from tests.unit.test_watch import SESSION, FakeDriver
from token_client import watch
from token_client.config import ClientConfig, OnRemoval
on_removal = OnRemoval(sys.argv[1])
def told(sentence):
    print("told", sentence, flush=True)
def give_up(ending):
    print("ended", ending.sentence, flush=True)
    return 3
config, driver = ClientConfig(on_removal=on_removal), FakeDriver()
ending = watch.Watch(driver, SESSION, watch.lookout(config, SESSION), config, told, give_up).run()
"""


def asking(pcscd: CardReaders, tmp_path: Path, program: str, *arguments: str) -> list[str]:
    """Return what runs an impatient program in an environment of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PCSCLITE_CSOCK_NAME": str(pcscd.socket),
        "CARNET_PKCS11_MODULE": OPENSC,
        "CARNET_PIN": "123456",
    }
    variables = [f"{name}={value}" for name, value in environment.items()]
    return ["env", "-i", *variables, sys.executable, "-c", IMPATIENT + program, *arguments]


def ended(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
