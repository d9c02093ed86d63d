"""`mint`: the officer's order, checked before the token is touched, and what came of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from carnet.console import print_json
from carnet.errors import UsageError
from carnet.progress import progress_bar
from carnet.token import keys
from carnet.wire.documents import Cover
from carnet.wire.envelope import SPLIT
from carnet.wire.split import fingerprint
from provisioning.checks import checked
from provisioning.choice import KEY_TYPES, OAEP_NAMES, is_rsa
from provisioning.host_file import read_host_keys, read_transport_key
from provisioning.leftover import may_be_left
from provisioning.minting import Minted, MintOrder, mint
from provisioning.options import (
    Command,
    Station,
    TokenAccess,
    json_option,
    officer_options,
    token_options,
)
from provisioning.output import check_writable, done_all_the_same
from provisioning.suitability import (
    accept_option,
    check_fitness,
    check_keeping,
    check_room,
    tried_by,
)

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


def _custody_options(command: Command) -> Command:
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


@click.command("mint")
@_custody_options
@order_options
@token_options
@officer_options
@accept_option
@click.option("--yes", is_flag=True, help="Do not ask whether so many pairs fit.")
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show how far it is  [default: on a terminal].",
)
@json_option
def mint_command(
    access: TokenAccess,
    station: Station,
    accept_unfit: bool,
    yes: bool,
    progress: bool | None,
    as_json: bool,
    **order: Any,
) -> None:
    """Mint one-time key pairs for a user.

    Either all of them end on the token, and in the batch for her Host, or none. In custody
    paired the batch brings the Host the private keys, wrapped; in custody split they never
    leave the token.
    """
    placed = order_of(**order)
    officer = station.officer()
    login = access.login()
    type_ = keys.TYPES[placed.key_type]
    with login.session(writable=True) as session:
        room = check_room(session, placed.count, type_, yes=yes)
        ways_out = check_fitness(session, tried_by(type_), accept=accept_unfit)
        check_keeping(session)
    with progress_bar("Minting", placed.count, wanted=progress) as advance:
        minted = mint(login, officer, placed, advance)
    with done_all_the_same(f"the pairs are minted, and {placed.batch_files[0]} is written"):
        if as_json:
            print_json({**_facts(minted, placed), "room_before": room.pairs, "ways_out": ways_out})
        else:
            _tell(minted, placed)


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
            f"{batches} files are named for batches; give one --out for each "
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
    checked(hosts, fields["hosts"], "--host-url is up to 8 times http://… or https://…; mend it.")
    checked(targets, fields["targets"], "--target is up to 32 names of a-z, 0-9, . and -; mend it.")


def _facts(minted: Minted, order: MintOrder) -> dict[str, Any]:
    batch = minted.batches[0]
    return {
        "pairs": len(batch.pairs),
        "key_type": minted.choice.type_.name,
        "oaep_hash": minted.choice.oaep_hash,
        "suite": minted.choice.suite.name,
        "user": batch.user_id,
        "token": {"label": minted.token_label, "serial": batch.token_serial},
        "batch": order.batch_files[0],
        "batch_id": batch.batch_id,
        "custody": batch.custody,
        **compared(order),
        "batches": [
            {"file": path, "host_transport_key_sha256": fingerprint([each.host_transport_key])}
            for path, each in zip(order.batch_files, minted.batches, strict=True)
        ],
        "not_after": order.last_day,
        "destroyed_of_earlier_mint": minted.recovered,
    }


def _tell(minted: Minted, order: MintOrder) -> None:
    batch = minted.batches[0]
    if minted.recovered:
        click.echo(f"An earlier mint was cut off: {minted.recovered} pairs of it were destroyed.")
    choice = minted.choice
    click.echo(
        f"{len(batch.pairs)} {choice.type_.name} key pairs for {batch.user_id} are on token "
        f"{minted.token_label} (serial {batch.token_serial})."
    )
    if choice.oaep_hash:
        why = "as ordered" if order.oaep_hash else "the strongest that this token can do"
        click.echo(f"RSA encryption is OAEP with {choice.oaep_hash}, {why}.")
    click.echo(
        f"They are of suite {choice.suite.name}, in custody {order.custody}; Host and Target have "
        f"to allow the suite."
    )
    which = "long-term keys have" if order.custody == SPLIT else "transport key has"
    for path, each in zip(order.batch_files, minted.batches, strict=True):
        click.echo(f"Batch {each.batch_id.hex()} is {path}; the Host imports it.")
        click.echo(f"It is for the Host whose {which} this SHA-256; compare it there:")
        host_keys = order.host_keys or (each.host_transport_key,)
        click.echo(f"  {fingerprint(host_keys)}")


def compared(order: MintOrder) -> dict[str, str]:
    """Return what officer and operator compare, under its name."""
    if order.custody == SPLIT:
        return {"host_keys_sha256": fingerprint(order.host_keys)}
    return {"host_transport_key_sha256": fingerprint(order.host_transport_keys[:1])}
