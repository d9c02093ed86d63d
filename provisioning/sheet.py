"""The sheet that goes with a token: what its user has to know, and no secret.

What is on it can be read without the PIN too, by whoever has the token; so it helps no
thief, and is printed by the security officer for the traveller's wallet.
"""

import shlex
from dataclasses import dataclass
from datetime import UTC, date, datetime

from carnet import serials
from carnet.counting import agreeing
from carnet.errors import TokenError
from carnet.token.cryptoki import PARAMETERS_VARIABLE
from carnet.token.module import TokenInfo
from carnet.token.onetime import OneTimePair
from carnet.wire.documents import Cover
from provisioning.officer import CERTIFICATE_FILE

_WIDTH = 12
_SPECIAL = frozenset('"\\$`!')
"""What a shell does not take as it is between double quotes."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What is on the sheet."""

    label: str
    serial: str
    user_id: str
    targets: tuple[str, ...]
    hosts: tuple[str, ...]
    pairs: int
    """How many one-time key pairs can still be used."""
    not_after: date | None
    """Last day of the first that expires; None: none does."""
    contact: str | None
    """Whom to call, in the officer's words; None: a line to write it on."""
    module: str | None
    """The PKCS#11 module as commands have to name it; None: they find it by themselves."""
    parameters: str | None
    """What the module wants to be told when it starts; None: nothing."""
    cover_file: str | None
    """The name of the file that the cover is in; None: it is on the token."""
    printed: date


@dataclass(frozen=True)
class Section:
    """A part of the sheet: its heading and its lines, each a sentence or a fact."""

    heading: str
    lines: tuple[str, ...]


def sheet_of(
    info: TokenInfo,
    cover: Cover | None,
    pairs: list[OneTimePair],
    contact: str | None,
    *,
    module: str | None,
    parameters: str | None,
    cover_file: str | None = None,
) -> Sheet:
    """Return the sheet of a token; raises TokenError if there is nothing on it to be used."""
    if cover is None:
        raise TokenError(f"Token {info.label} has no cover; mint on it before you hand it out.")
    today = datetime.now(UTC).date()
    usable = [pair for pair in pairs if pair.not_after is None or pair.not_after >= today]
    if not usable:
        raise TokenError(
            f"Token {info.label} holds no key pair that can be used; mint on it before you hand it "
            f"out."
        )
    return Sheet(
        label=info.label,
        serial=info.serial,
        user_id=cover.user_id,
        targets=cover.targets,
        hosts=cover.hosts,
        pairs=len(usable),
        not_after=min((pair.not_after for pair in usable if pair.not_after), default=None),
        contact=contact,
        module=module,
        parameters=parameters,
        cover_file=cover_file,
        printed=today,
    )


def sections(sheet: Sheet) -> tuple[Section, ...]:
    """Return the sheet part by part."""
    return (_token(sheet), _connecting(sheet), _loss(sheet))


def as_text(sheet: Sheet) -> str:
    """Return the sheet as plain text."""
    parts = [_underlined(title(sheet), "=")]
    for section in sections(sheet):
        parts += [_underlined(section.heading, "-"), *section.lines, ""]
    return "\n".join(parts)


def title(sheet: Sheet) -> str:
    """Return the sheet's title."""
    return f"Your token {sheet.label}"


def _underlined(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _token(sheet: Sheet) -> Section:
    first = agreeing(sheet.pairs, "", " (the first of them)")
    until = f"{sheet.not_after}{first}" if sheet.not_after else "no end"
    opens = agreeing(sheet.pairs, "which opens", "each opens")
    facts = (
        ("Label", sheet.label),
        ("Serial", sheet.serial),
        ("User", sheet.user_id),
        ("Key pairs", f"{sheet.pairs}, {opens} one tunnel, once"),
        ("Good until", until),
        ("Reaches", ", ".join(sheet.targets)),
        ("Host", ", ".join(sheet.hosts)),
        ("Printed", str(sheet.printed)),
    )
    return Section("The token", tuple(f"{name:{_WIDTH}}{value}" for name, value in facts))


def _connecting(sheet: Sheet) -> Section:
    files: tuple[str, ...] = ()
    needed, options = "Carnet and strongSwan", ""
    if sheet.module:
        needed = f"Carnet, strongSwan and the token's PKCS#11 module ({sheet.module})"
        options = f" --module {shlex.quote(sheet.module)}"
    if sheet.cover_file:
        cover = shlex.quote(sheet.cover_file)
        files = (f"Take {cover} and {CERTIFICATE_FILE} along; neither is secret.",)
        options += f" --cover {cover} --officer {CERTIFICATE_FILE}"
    steps = (
        f"On a machine with {needed}, plug the token in.",
        *_telling(sheet.parameters),
        f"Run `carnet doctor{options}`. It says what is not right, and what to do.",
        f"Run `carnet connect {sheet.targets[0]}{options}`, and type your PIN when it asks.",
        "When you leave, pull the token out, or run `carnet disconnect`: the tunnel ends.",
    )
    return Section(
        "How to connect",
        (
            *files,
            *(f"{number}. {step}" for number, step in enumerate(steps, 1)),
            "Each connection uses up a key pair, and says how many are left. Ask for more in time.",
        ),
    )


def _telling(parameters: str | None) -> tuple[str, ...]:
    """Return the step that tells the module what it wants to know, such as NSS's softoken."""
    if parameters is None:
        return ()
    quoted = shlex.quote(parameters) if _SPECIAL & {*parameters} else f'"{parameters}"'
    step = (
        f"Run `export {PARAMETERS_VARIABLE}={quoted}`, by which the module finds the token; "
        f"correct the directory if its files are elsewhere there."
    )
    return (step,)


def _loss(sheet: Sheet) -> Section:
    said, option = f"the serial number, {sheet.serial}", f"--token-serial {sheet.serial}"
    if not serials.is_own(sheet.serial):
        said, option = f"who you are, {sheet.user_id}", f"--user {shlex.quote(sheet.user_id)}"
    return Section(
        "When it is lost, or something is wrong",
        (
            f"Call at once: {sheet.contact or '_' * 40}",
            f"Say {said}: all of its key pairs are revoked by that,",
            "and your tunnels end. The Host's operator does that with this command:",
            f"`carnet-host revoke {option}`",
            "Call as well if the token was out of your hands, or somebody saw you type the PIN.",
            "If the PIN is not taken, stop before the last try, and call: it can be unblocked.",
            "Your PIN is not on this sheet. Do not write it here, and tell it nobody who calls.",
            "Do not keep this sheet with the token.",
        ),
    )
