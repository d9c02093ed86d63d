"""`carnet-host host-keys`: the Host's long-term keys, to which custody `split` seals."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from cryptography.hazmat.primitives import serialization

from carnet import console, crash
from carnet.counting import agreeing, counted
from carnet.errors import UsageError
from carnet.secret_sources import secret_options
from carnet.token.host_keys import HostCouple, HostKeys, destroy_host_keys, make_host_keys
from carnet.wire.split import fingerprint
from host_agent import config as configuration
from host_agent.fitness import check_fit
from host_agent.local import PIN, accept_option, hsm_session, open_database, read_pin
from softhsm.durable import durably


@click.command("host-keys")
@click.option("--new", "anew", is_flag=True, help="Make a new generation beside the old.")
@click.option("--list", "listing", is_flag=True, help="Show every generation; print no keys.")
@click.option(
    "--destroy",
    type=click.IntRange(1, 9999),
    metavar="N",
    help="Destroy generation N, and revoke the pairs that need it.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@secret_options("pin", PIN)
@accept_option
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON, the keys in PEM.")
@click.pass_obj
def host_keys(
    path: Path,
    anew: bool,
    listing: bool,
    destroy: int | None,
    yes: bool,
    pin_fd: int | None,
    pin_file: Path | None,
    accept_unfit: bool,
    as_json: bool,
) -> None:
    """Print the keys that the officer mints to in custody split (PEM); made when missing."""
    if [anew, listing, destroy is not None].count(True) > 1:
        raise UsageError("Choose one of --new, --list and --destroy.")
    config = configuration.load(path)
    pin = read_pin(pin_fd, pin_file)
    if not listing and destroy is None:
        with hsm_session(config, pin) as session:
            check_fit(session, accept=accept_unfit)
            with durably(session):
                couples = make_host_keys(session, anew=anew)
            _print_keys(couples, as_json=as_json)
        return
    with open_database(config) as database, hsm_session(config, pin) as session:
        couples = HostKeys(session).couples()
        generations = _generations(couples, database.host_keys_in_use())
        if destroy is None:
            _show(generations, as_json=as_json)
            return
        _confirm(generations, destroy, yes=yes)
        # First: a valid pair of which no HSM has the key would have its Client come again.
        revoked = database.revoke(
            f"generation {destroy} of the Host's keys is destroyed",
            host_key_id=[each.key_id for each in couples if each.generation == destroy],
        )
        crash.reach("host.generation-revoked")
        destroy_host_keys(session, destroy)
    if as_json:
        console.print_json({"generation": destroy, "revoked": revoked})
        return
    click.echo(
        f"Generation {destroy} of the Host's keys is destroyed; "
        f"{counted(len(revoked), 'valid key pair')} that needed it "
        f"{agreeing(len(revoked), 'is', 'are')} revoked."
    )


@dataclass(frozen=True)
class Generation:
    """The keys of one time, and how many valid pairs still need them."""

    generation: int
    key_ids: tuple[str, ...]
    fingerprint: str
    valid_pairs: int


def public_keys(couples: list[HostCouple]) -> list[bytes]:
    """Return the keys as a cover lists them: each to seal to, then the one to verify under."""
    return [key for couple in couples for key in (couple.sealing, couple.signing)]


def _generations(couples: list[HostCouple], in_use: Mapping[bytes, int]) -> list[Generation]:
    numbers = sorted({couple.generation for couple in couples})
    return [
        Generation(
            number,
            tuple(each.key_id.hex() for each in mine),
            fingerprint(public_keys(mine)),
            sum(in_use.get(each.key_id, 0) for each in mine),
        )
        for number in numbers
        for mine in [[each for each in couples if each.generation == number]]
    ]


def _print_keys(couples: list[HostCouple], *, as_json: bool) -> None:
    keys, generation = public_keys(couples), couples[0].generation
    pems = [_pem(key) for key in keys]
    if as_json:
        facts = {"generation": generation, "fingerprint": fingerprint(keys), "keys": pems}
        console.print_json(facts)
        return
    click.echo("".join(pems), nl=False)
    click.echo(
        f"SHA-256 fingerprint of generation {generation}, to compare with the officer: "
        f"{fingerprint(keys)}",
        err=True,
    )


def _pem(key: bytes) -> str:
    return (
        serialization.load_der_public_key(key)
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def _show(generations: list[Generation], *, as_json: bool) -> None:
    if as_json:
        console.print_json([vars(each) for each in generations])
    elif not generations:
        click.echo("The HSM has no keys for custody split; `carnet-host host-keys` makes them.")
    for each in () if as_json else generations:
        click.echo(
            f"{each.generation}  {counted(each.valid_pairs, 'valid pair')}  {each.fingerprint}"
        )


def _confirm(generations: list[Generation], number: int, *, yes: bool) -> None:
    chosen = next((each for each in generations if each.generation == number), None)
    if chosen is None:
        raise UsageError(
            f"There is no generation {number}; `carnet-host host-keys --list` shows those there "
            f"are."
        )
    pairs = chosen.valid_pairs
    console.confirm(
        f"Destroy generation {number}? {counted(pairs, 'valid key pair')} "
        f"{agreeing(pairs, 'needs', 'need')} it, and will be revoked.",
        yes=yes,
    )
