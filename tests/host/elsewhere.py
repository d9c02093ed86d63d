"""What other processes do to the Host's token, or with it."""

import subprocess
import sys
from contextlib import contextmanager

LOCK = """
import fcntl, pathlib, sys
files = [path.open("r+") for path in pathlib.Path(sys.argv[1]).rglob("generation")]
for file in files:
    fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""

OTHER_TOKEN = """
import sys
from carnet.token.initialise import initialise_token
from carnet.token.finding import find_module
from carnet.token.module import load_module

label, so_pin, pin = sys.stdin.read().splitlines()
initialise_token(load_module(find_module(None)), label=label, so_pin=so_pin, pin=pin)
"""

ANOTHER_LOGIN = """
import sys
from carnet.errors import TokenError
from carnet.token import turns
from host_agent import hsm_login
from host_agent.config import TokenSection

hsm_login.may_lock, turns.WAIT_SECONDS = lambda _: True, 0
try:
    hsm_login.HsmLogin(TokenSection(token="host"), sys.stdin.read(), lambda _: None).log_in()
except TokenError as error:
    print(error.sentence)
else:
    print("logged in")
"""

SERVING = """
import asyncio, sys
from host_agent import hsm_service as service
from host_agent.hsm import open_hsm
from host_agent.config import TokenSection

service.OPERATION_SECONDS = 0.5
service.log.info = service.log.warning = lambda *_, **__: None

async def main():
    pin = sys.stdin.readline().strip()
    async with open_hsm(TokenSection(token="host"), pin) as hsm:
        print("in service", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            await hsm.destroy(bytes(16))
        except service.HsmAwayError:
            pass
        else:
            sys.exit("it does not hang")

asyncio.run(main())
"""

ANOTHER_PAIR = """
import sys
from carnet.token.finding import find_module
from carnet.token.module import load_module
from carnet.token.session import open_session
from tests.token.helpers import Pairing

traveller, host, pin = sys.stdin.read().splitlines()
choose = load_module(find_module(None)).choose
with open_session(choose(traveller), pin, writable=True) as carried:
    with open_session(choose(host), pin, writable=True) as hsm:
        Pairing(carried, hsm).share(4)
"""

NEW_PIN = """
import sys
import pkcs11
from carnet.token.finding import find_module
from carnet.token.module import load_module

so_pin, pin = sys.stdin.read().splitlines()
with load_module(find_module(None)).choose("host").handle.open(rw=True, so_pin=so_pin) as session:
    session.init_pin(pin)
"""


def elsewhere(script, *lines):
    """Do something to the tokens in another process, which reads these lines; return its output."""
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, input="\n".join(lines), text=True, check=True, timeout=60, stdout=subprocess.PIPE
    ).stdout


@contextmanager
def locked(tokens):
    """SoftHSM2 waits, in the middle of an operation, for who holds these locks."""
    command = [sys.executable, "-c", LOCK, str(tokens)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            holder.stdin.close()
