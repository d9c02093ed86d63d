"""`mint`: the officer's order, checked before the token is touched, and what came of it."""

from pathlib import Path
from typing import Any

import click

from carnet.console import print_json
from carnet.counting import agreeing, counted
from carnet.errors import UsageError
from carnet.progress import progress_bar
from carnet.token import keys, trials
from carnet.wire.envelope import SPLIT
from carnet.wire.split import fingerprint
from provisioning.alone import alone_on
from provisioning.in_file import InFile
from provisioning.keeping import Keeping, OnToken
from provisioning.minting import Minted, mint
from provisioning.options import (
    Station,
    TokenAccess,
    json_option,
    officer_options,
    token_options,
)
from provisioning.order import MintOrder
from provisioning.order_options import FILE, compared, custody_options, order_of, order_options
from provisioning.output import check_writable, done_all_the_same
from provisioning.resuming import left
from provisioning.suitability import accept_option, check_fitness, check_room, tried_by
from softhsm.durable import saying_when_full


@click.command("mint")
@custody_options
@order_options
@token_options
@officer_options
@accept_option
@click.option(
    "--cover",
    type=FILE,
    help="Keep the cover in this file, new or of an earlier mint: for tokens that store none.",
)
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
    cover: Path | None,
    yes: bool,
    progress: bool | None,
    as_json: bool,
    **order: Any,
) -> None:
    """Mint one-time key pairs for a user.

    Either all of them end on the token, and in the batch for her Host, or none counts. In
    custody paired the batch brings the Host the private keys, wrapped; in custody split they
    never leave the token. After an interruption the same command again goes on from the key
    pairs that are made, in custody split; in custody paired it destroys them and begins anew.
    """
    placed = order_of(**order)
    keeping = _keeping(placed, cover)
    officer = station.officer()
    login = access.login()
    type_ = keys.TYPES[placed.key_type]
    with alone_on(login.token):
        with login.session(writable=True) as session, saying_when_full(login.token.serial):
            wanted = placed.count - left(session, keeping, placed)
            room = check_room(session, wanted, type_, yes=yes)
            making = trials.generated if placed.custody == SPLIT else trials.copied
            ways_out = check_fitness(session, tried_by(type_), making, accept=accept_unfit)
            keeping.check(session, placed.key_type, placed.count)
        with progress_bar("Minting", placed.count, wanted=progress) as advance:
            minted = mint(login, officer, placed, keeping, advance)
    with done_all_the_same(f"the pairs are minted, and {placed.batch_files[0]} is written"):
        if as_json:
            found = {"room_before": room.pairs, "ways_out": ways_out, "cover": cover}
            print_json({**_facts(minted, placed), **found})
        else:
            _tell(minted, placed, cover)


def _keeping(order: MintOrder, cover: Path | None) -> Keeping:
    """Return where journal and cover are kept; raises UsageError."""
    if cover is None:
        return OnToken()
    if order.custody != SPLIT:
        raise UsageError("--cover is for custody split; add --custody split, or leave it out.")
    if cover in order.batch_files:
        raise UsageError("The batch and the cover go to the same file; name another by --cover.")
    if not cover.exists():
        check_writable(cover)
    return InFile(cover)


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
        "kept_of_earlier_mint": minted.resumed,
    }


def _tell(minted: Minted, order: MintOrder, cover: Path | None) -> None:
    batch = minted.batches[0]
    for count, done in (minted.resumed, "kept, and counted here"), (minted.recovered, "destroyed"):
        if count:
            were = agreeing(count, "was", "were")
            of_it = counted(count, "key pair")
            click.echo(f"An earlier mint was cut off: {of_it} of it {were} {done}.")
    if minted.recovered:
        click.echo("Delete a batch that it wrote to another --out: its key pairs are gone.")
    choice = minted.choice
    click.echo(
        f"{counted(len(batch.pairs), f'{choice.type_.name} key pair')} for {batch.user_id} "
        f"{agreeing(len(batch.pairs), 'is', 'are')} on token {minted.token_label} (serial "
        f"{batch.token_serial})."
    )
    if choice.oaep_hash:
        why = "as ordered" if order.oaep_hash else "the strongest that this token can do"
        click.echo(f"RSA encryption is OAEP with {choice.oaep_hash}, {why}.")
    click.echo(
        f"{agreeing(len(batch.pairs), 'It is', 'They are')} of suite {choice.suite.name}, in "
        f"custody {order.custody}; Host and Target have to allow the suite."
    )
    which = "long-term keys have" if order.custody == SPLIT else "transport key has"
    for path, each in zip(order.batch_files, minted.batches, strict=True):
        click.echo(f"Batch {each.batch_id.hex()} is {path}; the Host imports it.")
        click.echo(f"It is for the Host whose {which} this SHA-256; compare it there:")
        host_keys = order.host_keys or (each.host_transport_key,)
        click.echo(f"  {fingerprint(host_keys)}")
    if cover is not None:
        click.echo(f"The cover is {cover}; the traveller needs it, and your certificate.")
