"""`list`: the cover and the pairs, on the token and in the file of its cover."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from carnet.console import print_json
from carnet.counting import agreeing, counted
from carnet.cover import read_cover
from carnet.token.module import TokenInfo
from carnet.token.onetime import OneTimeKeys, OneTimePair
from carnet.token.session import TokenSession
from carnet.wire.documents import Cover
from provisioning.covered import cover_option, read_covered
from provisioning.in_file import FileJournal
from provisioning.journal import TokenJournal, is_unfinished
from provisioning.options import TokenAccess, directory_option, json_option, token_options
from softhsm.damage import damaged_files


@click.command("list")
@cover_option
@directory_option
@token_options
@json_option
def list_pairs(access: TokenAccess, directory: Path, cover: Path | None, as_json: bool) -> None:
    """Show the cover and the key pairs, in the order of use."""
    with access.login().session(writable=False) as session:
        info, listing = session.token.info, _listing(session, cover, directory)
    if as_json:
        print_json(_facts(info, listing))
    else:
        _show(info, listing)
        _show_damage(listing)


@dataclass(frozen=True)
class _Listing:
    """What is on a token, and what a kill, a power cut or a full disk has left there."""

    cover: Cover | None
    pairs: list[OneTimePair]
    unlisted: list[OneTimePair]
    """Minted, and not in the file that is the cover."""
    halves: frozenset[bytes]
    files: list[Path]
    unfinished: list[bytes]
    """Whole pairs of a mint that was cut off: no batch has them."""
    resumable: bool
    """Whether the same mint goes on from them."""


def _listing(session: TokenSession, path: Path | None, directory: Path) -> _Listing:
    minted = OneTimeKeys(session)
    pairs, unlisted = minted.pairs(), []
    cover = None
    if path is None:
        cover, prefixes = read_cover(session), TokenJournal().unfinished(session)
    else:
        prefixes = FileJournal(path).unfinished(session)
    if path is not None and (path.exists() or not prefixes):
        file, covered = read_covered(session, path, directory)
        cover, listed = file.cover, {pair.key_id for pair in file.pairs}
        unlisted = [pair for pair in pairs if pair.key_id not in listed]
        pairs = covered.pairs()
    every = {pair.key_id: pair for pair in (*minted.pairs(), *pairs)}.values()
    return _Listing(
        cover=cover,
        pairs=pairs,
        unlisted=[pair for pair in unlisted if not is_unfinished(pair, prefixes)],
        halves=minted.halves(),
        files=damaged_files(session.token.info.serial, session.count()),
        unfinished=[pair.key_id for pair in every if is_unfinished(pair, prefixes)],
        resumable=all(prefixes.values()),
    )


def _facts(info: TokenInfo, listing: _Listing) -> dict[str, Any]:
    cover = listing.cover
    return {
        "token": {"label": info.label, "serial": info.serial},
        "cover": cover and {name: getattr(cover, name) for name in cover.__struct_fields__},
        "pairs": [
            {
                "key_id": pair.key_id,
                "label": pair.label,
                "key_type": pair.key_type,
                "not_after": pair.not_after,
            }
            for pair in listing.pairs
        ],
        "unlisted_pairs": [pair.key_id for pair in listing.unlisted],
        "damaged_pairs": sorted(listing.halves),
        "damaged_files": listing.files,
        "unfinished_pairs": listing.unfinished,
    }


def _show(info: TokenInfo, listing: _Listing) -> None:
    cover = listing.cover
    click.echo(f"Token {info.label} (serial {info.serial})")
    if cover is None:
        click.echo("No cover on it; mint to give it one, or name its file with --cover.")
    else:
        click.echo(f"User     {cover.user_id}")
        click.echo(f"Hosts    {', '.join(cover.hosts)}")
        click.echo(f"Targets  {', '.join(cover.targets)}")
        click.echo(f"Custody  {cover.custody}")
    click.echo(f"{counted(len(listing.pairs), 'key pair')}, in the order of use:")
    for pair in listing.pairs:
        until = f"  until {pair.not_after}" if pair.not_after else ""
        click.echo(f"  {pair.key_id.hex()}  {pair.label}  {pair.key_type}{until}")


def _show_damage(listing: _Listing) -> None:
    if listing.unfinished:
        count = len(listing.unfinished)
        are, them = agreeing(count, "is", "are"), agreeing(count, "it", "them")
        goes_on = f"the same command goes on from {them}, and any other destroys {them}"
        click.echo(
            f"{counted(count, 'key pair')} {are} of a mint that was cut off, and no Host knows "
            f"{them}; mint again before you hand the token out "
            f"({goes_on if listing.resumable else f'it destroys {them} first'}):"
        )
    for key_id in listing.unfinished:
        click.echo(f"  {key_id.hex()}")
    if listing.unlisted:
        count = len(listing.unlisted)
        click.echo(
            f"{count} more {agreeing(count, 'is', 'are')} on the token and not in this cover file, "
            f"and so cannot be used with it; another file may list {agreeing(count, 'it', 'them')}:"
        )
    for pair in listing.unlisted:
        click.echo(f"  {pair.key_id.hex()}")
    if listing.halves:
        click.echo(
            f"{len(listing.halves)} more cannot be used, for want of a half or by damage; "
            f"the next mint destroys what is so, as does `carnet-provision burn --key ID`:"
        )
    for key_id in sorted(listing.halves):
        click.echo(f"  {key_id.hex()}")
    if listing.files:
        click.echo(
            f"{counted(len(listing.files), 'file')} of this token "
            f"{agreeing(len(listing.files), 'is', 'are')} empty or cut short, and no object there "
            f"can be used; remove what is listed here when no program uses the token:"
        )
    for path in listing.files:
        click.echo(f"  {path}")
