"""`adopt`: keys that a card has already, taken for one-time pairs."""

from pathlib import Path
from typing import Any

import click

from carnet.console import print_json
from carnet.counting import agreeing, counted
from carnet.progress import progress_bar
from carnet.wire.envelope import SPLIT
from provisioning.adopting import Adopted, Adoption
from provisioning.leftover import cover_may_be_left
from provisioning.options import (
    Station,
    TokenAccess,
    json_option,
    officer_options,
    token_options,
)
from provisioning.order import MintOrder
from provisioning.order_options import FILE, compared, order_of, order_options
from provisioning.output import check_writable, done_all_the_same
from provisioning.suitability import accept_option

_RETIRED = "Retired KEY MAN *"
"""What OpenSC calls a PIV card's slots for retired keys, 82 to 95."""


@click.command("adopt")
@click.option("--cover-out", required=True, type=FILE, help="The cover, a new file.")
@click.option(
    "--label",
    "pattern",
    default=_RETIRED,
    show_default=True,
    help="Which of the card's keys, by their labels; * stands for anything.",
)
@click.option("--host-keys", required=True, type=FILE, help="The Host's long-term keys, PEM.")
@order_options
@token_options
@officer_options
@accept_option
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show how far it is  [default: on a terminal].",
)
@json_option
def adopt_command(
    access: TokenAccess,
    station: Station,
    cover_out: Path,
    pattern: str,
    accept_unfit: bool,
    progress: bool | None,
    as_json: bool,
    **order: Any,
) -> None:
    """Take keys that a card has already for a user's one-time key pairs, in custody split.

    For cards that make no keys and store no cover through PKCS#11, such as PIV cards.
    Make the keys on the card first, with its own tool. The traveller needs the cover file
    and your certificate beside her card.
    """
    placed = order_of(custody=SPLIT, transport_keys=(), oaep_hash=None, **order)
    if not cover_may_be_left(cover_out):
        check_writable(cover_out)
    adoption = Adoption(
        officer=station.officer(),
        order=placed,
        pattern=pattern,
        cover=cover_out,
        accept_unfit=accept_unfit,
    )
    login = access.login()
    with progress_bar("Adopting", placed.count, wanted=progress) as advance:
        adopted = adoption.adopt(login, advance)
    with done_all_the_same(f"{placed.batch_files[0]} and {cover_out} are written"):
        for name, count in adopted.before.items():
            click.echo(
                f"carnet-provision: {count} of these keys "
                f"{agreeing(count, 'is a pair', 'are pairs')} in {name} already; the Host refuses "
                f"this batch where such a one is spent, or another user's.",
                err=True,
            )
        if as_json:
            print_json(_facts(adopted, placed, cover_out))
        else:
            _tell(adopted, placed, cover_out)


def _facts(adopted: Adopted, order: MintOrder, cover: Path) -> dict[str, Any]:
    batch = adopted.batch
    return {
        "pairs": len(batch.pairs),
        "key_type": adopted.choice.type_.name,
        "suite": adopted.choice.suite.name,
        "custody": batch.custody,
        "user": batch.user_id,
        "token": {"label": adopted.token_label, "serial": batch.token_serial},
        "batch": order.batch_files[0],
        "batch_id": batch.batch_id,
        "cover": cover,
        "not_after": order.last_day,
        "adopted_before": adopted.before,
        **compared(order),
    }


def _tell(adopted: Adopted, order: MintOrder, cover: Path) -> None:
    batch = adopted.batch
    click.echo(
        f"{counted(len(batch.pairs), f'{adopted.choice.type_.name} key')} of token "
        f"{adopted.token_label} (serial {batch.token_serial}) "
        f"{agreeing(len(batch.pairs), 'is a key pair', 'are key pairs')} for {batch.user_id}, in "
        f"custody split."
    )
    click.echo(f"Batch {batch.batch_id.hex()} is {order.batch_files[0]}; the Host imports it.")
    click.echo(f"The cover is {cover}; the traveller needs it, and your certificate.")
    click.echo("It is for the Host whose long-term keys have this SHA-256; compare it there:")
    click.echo(f"  {', '.join(compared(order).values())}")
