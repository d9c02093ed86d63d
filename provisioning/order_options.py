"""The options of what makes a batch, and the order that they come to."""

from datetime import UTC, datetime
from pathlib import Path

import click

from carnet.counting import counted
from carnet.errors import UsageError
from carnet.wire.documents import Cover, Url
from carnet.wire.envelope import SPLIT
from carnet.wire.fields import Name
from carnet.wire.split import fingerprint
from provisioning.checks import checked
from provisioning.choice import KEY_TYPES, OAEP_NAMES, is_rsa
from provisioning.host_file import read_host_keys, read_transport_key
from provisioning.leftover import may_be_left
from provisioning.options import Command
from provisioning.order import MintOrder
from provisioning.output import check_writable

_MAX_COUNT = 9999
FILE = click.Path(dir_okay=False, path_type=Path)


def order_options(command: Command) -> Command:
    """Add the options of whatever makes a batch."""
    for option in (
        click.option(
            "--out",
            "outs",
            required=True,
            multiple=True,
            type=FILE,
            help="The batch, a new file; one for each transport key, in the same order.",
        ),
        click.option(
            "--not-after",
            type=click.DateTime(["%Y-%m-%d"]),
            metavar="YYYY-MM-DD",
            help="Last day of validity, UTC  [default: no end].",
        ),
        click.option(
            "--key-type", type=click.Choice(KEY_TYPES), default=KEY_TYPES[0], show_default=True
        ),
        click.option(
            "--target",
            "targets",
            required=True,
            multiple=True,
            metavar="NAME",
            help="Target to be reached, repeatable; the first is the default.",
        ),
        click.option(
            "--host-url", "hosts", required=True, multiple=True, help="Host's address, repeatable."
        ),
        click.option(
            "--count", required=True, type=click.IntRange(1, _MAX_COUNT), help="How many pairs."
        ),
        click.option("--user", "user_id", required=True, help="As in alice@office."),
    ):
        command = option(command)
    return command


def custody_options(command: Command) -> Command:
    """Add the options that say who holds the private keys."""
    for option in (
        click.option(
            "--oaep-hash",
            type=click.Choice(OAEP_NAMES),
            help="Of RSA encryption  [default: the strongest that the token can do].",
        ),
        click.option(
            "--custody",
            type=click.Choice(["paired", "split"]),
            default="paired",
            show_default=True,
            help="Who holds the private key.",
        ),
        click.option(
            "--host-keys", type=FILE, help="For custody split: the Host's long-term keys, PEM."
        ),
        click.option(
            "--host-transport-key",
            "transport_keys",
            multiple=True,
            type=FILE,
            help="For custody paired: Host's key, PEM or DER; repeatable, for several HSMs.",
        ),
    ):
        command = option(command)
    return command


def order_of(
    *,
    user_id: str,
    count: int,
    transport_keys: tuple[Path, ...],
    host_keys: Path | None,
    hosts: tuple[str, ...],
    targets: tuple[str, ...],
    custody: str,
    key_type: str,
    oaep_hash: str | None,
    not_after: datetime | None,
    outs: tuple[Path, ...],
) -> MintOrder:
    """Return what was ordered, as far as it can be checked without the token.

    Raises UsageError.
    """
    keys, long_term_keys = _read_keys(custody, transport_keys, host_keys, len(outs))
    if len(set(outs)) != len(outs):
        raise UsageError("Two batches go to the same file; give each --out another name.")
    if oaep_hash and custody == SPLIT:
        raise UsageError("Nothing is encrypted to pairs in custody split; leave --oaep-hash out.")
    if oaep_hash and not is_rsa(key_type):
        raise UsageError(f"--oaep-hash is for RSA, not for {key_type}; leave it out.")
    _check_names(user_id, hosts, targets)
    for out in outs:
        if not may_be_left(out):
            check_writable(out)
    last_day = not_after.date() if not_after else None
    if last_day is not None and last_day < datetime.now(UTC).date():
        raise UsageError(f"--not-after {last_day} is over; choose a day to come.")
    return MintOrder(
        user_id=user_id,
        count=count,
        custody=custody,
        host_transport_keys=keys,
        host_keys=long_term_keys,
        hosts=hosts,
        targets=targets,
        key_type=key_type,
        oaep_hash=oaep_hash,
        last_day=last_day,
        batch_files=outs,
    )


def _read_keys(
    custody: str, transport_keys: tuple[Path, ...], host_keys: Path | None, batches: int
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the transport keys of the Host's HSMs, or its long-term keys; raises UsageError."""
    needed, other = "--host-transport-key", "--host-keys"
    given, surplus = bool(transport_keys), host_keys is not None
    if custody == SPLIT:
        needed, other, given, surplus = other, needed, surplus, given
    if not given or surplus:
        raise UsageError(f"Custody {custody} takes {needed}, and no {other}; give that file.")
    if batches != max(1, len(transport_keys)):
        raise UsageError(
            f"--out names {counted(batches, 'file')}; give one --out for each "
            f"--host-transport-key, and one in custody {SPLIT}."
        )
    if host_keys is not None:
        return (), read_host_keys(host_keys)
    keys = tuple(map(read_transport_key, transport_keys))
    if len(set(keys)) != len(keys):
        raise UsageError("Two of the transport keys are the same; give each HSM's own.")
    return keys, ()


def _check_names(user_id: str, hosts: tuple[str, ...], targets: tuple[str, ...]) -> None:
    fields = Cover.__annotations__
    checked(user_id, fields["user_id"], f"{user_id!r} is no user ID; write it as alice@office.")
    for host in hosts:
        checked(
            host, Url, f"--host-url {host!r} is no address; write it as https://office.example."
        )
    checked(hosts, fields["hosts"], "There are too many Hosts; give --host-url 8 times at most.")
    for target in targets:
        checked(
            target, Name, f"--target {target!r} is no name; write up to 63 of a-z, 0-9, . and -."
        )
    checked(targets, fields["targets"], "There are too many Targets; give up to 32 --target.")


def compared(order: MintOrder) -> dict[str, str]:
    """Return what officer and operator compare, under its name."""
    if order.custody == SPLIT:
        return {"host_keys_sha256": fingerprint(order.host_keys)}
    return {"host_transport_key_sha256": fingerprint(order.host_transport_keys[:1])}
