"""What any tunnel like Carnet's must do, with nothing in between: `python -m bench.floor_connect`.

On the Client: a bare interpreter, the token operations of one connection, one exchange
with the Host's door, and swanctl that initiates a connection whose pre-shared key is
loaded at both ends. What its libraries import, and it has no use for, is left out by the same
means as `carnet` has. `make` puts pairs on a token; `connect` uses one up, prints how long
each step took, in milliseconds, as JSON, and when by the machine's clock the first one began
and the last was over.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from carnet.entry import import_light

import_light("pkcs11")

import http.client  # noqa: E402  after what has it load no TLS

import pkcs11  # noqa: E402
from pkcs11 import (  # noqa: E402
    KDF,
    Attribute,
    KeyType,
    Mechanism,
    MechanismFlag,
    ObjectClass,
    UserType,
)

_MODULE = os.environ["BENCH_MODULE"]
_PIN_FD = int(os.environ["BENCH_PIN_FD"])
_CURVE = {Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}


def _session() -> pkcs11.Session:
    with os.fdopen(_PIN_FD) as pin:
        return (
            pkcs11.lib(_MODULE)
            .get_token(token_label="floor")  # noqa: S106  a name
            .open(rw=True, user_pin=pin.read().strip(), user_type=UserType.USER)
        )


def make(count: int) -> None:
    """Put so many pairs on the token, which is initialised already."""
    parameters = _session().create_domain_parameters(KeyType.EC, _CURVE, local=True)
    uses = MechanismFlag.SIGN | MechanismFlag.DERIVE
    for number in range(count):
        parameters.generate_keypair(store=True, capabilities=uses, id=bytes([number]), label="pair")


def connect(url: str, vici: str, child: str) -> dict[str, float]:
    """Do it once; return the milliseconds of each step, and the moments around them."""
    marks = [("", time.monotonic())]
    session = _session()
    marks.append(("login", time.monotonic()))
    # All of them: a search that is not at its end leaves no room for another.
    private: Any = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))[0]  # noqa: RUF015
    public = session.get_key(ObjectClass.PUBLIC_KEY, id=private.id)
    marks.append(("list", time.monotonic()))
    private.sign(bytes(32), mechanism=Mechanism.ECDSA)
    marks.append(("sign", time.monotonic()))
    _ask(url)
    marks.append(("network", time.monotonic()))
    point = public[Attribute.EC_POINT][2:]
    secret = private.derive_key(
        KeyType.GENERIC_SECRET, 256, mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, point),
        template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
    )  # fmt: skip
    bytes(secret[Attribute.VALUE])
    marks.append(("agree", time.monotonic()))
    initiate = ["swanctl", "--initiate", "--uri", vici, "--child", child]
    subprocess.run(initiate, check=True, stdout=subprocess.DEVNULL)
    marks.append(("ike", time.monotonic()))
    private.destroy()
    public.destroy()
    marks.append(("destroy", time.monotonic()))
    steps = {
        name: 1000 * (moment - before)
        for (name, moment), (_, before) in zip(marks[1:], marks, strict=False)
    }
    return {**steps, "begun": marks[0][1], "over": marks[-1][1]}


def _ask(url: str) -> None:
    """Have the Host's door answer once, whatever it says."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("POST", "/", body=bytes(1500))
    connection.getresponse().read()
    connection.close()


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(int(sys.argv[2]))
    else:
        json.dump(connect(*sys.argv[2:]), sys.stdout)
