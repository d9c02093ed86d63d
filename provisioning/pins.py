"""`change-pin` and `unblock`: another PIN for a token, and one for who is locked out."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from carnet.console import print_json
from carnet.errors import TokenError, UsageError
from carnet.pin import PinSource
from carnet.secret_sources import NEW_PIN_VARIABLE, SO_PIN_VARIABLE, read_secret, secret_options
from carnet.token import pins
from carnet.token.module import Token, TokenInfo
from carnet.token.presence import choose_token
from provisioning.options import (
    TokenAccess,
    json_option,
    module_option,
    open_module,
    token_options,
)
from softhsm.kept import kept_anew

_SELECTOR = click.option(
    "--token", "selector", metavar="SELECTOR", help="The token's label or serial."
)


@click.command("change-pin")
@click.option("--so", "officers", is_flag=True, help="The SO PIN, not the user's.")
@secret_options("new-pin", "the new PIN")
@secret_options("so-pin", "the SO PIN that it has")
@token_options
@json_option
def change_pin(access: TokenAccess, officers: bool, as_json: bool, **sources: Any) -> None:
    """Give a token another PIN; key pairs stay."""
    token = choose_token(open_module(access.module), access.selector)
    info = token.info
    if officers:
        final = access.allow_final_try
        pins.check_so_pin_state(info, allow_final_try=final)
        old = _read_so_pin("the SO PIN", as_it_is=True, **sources)
        new = _read_new_pin("SO PIN", **sources)
        with kept_anew():
            pins.change_so_pin(_again(token, info), old, new, allow_final_try=final)
    else:
        _change_users(token, access, sources)
    what = "SO PIN" if officers else "PIN"
    _report(info, f"The {what} of token {info.label} is changed.", as_json=as_json)


@click.command()
@click.option("--puk", "by_puk", is_flag=True, help="By the card's PUK: it has no SO PIN.")
@module_option
@_SELECTOR
@click.option("--allow-final-try", is_flag=True, help="Risk the last try of the SO PIN.")
@secret_options("new-pin", "the new PIN")
@secret_options("so-pin", "the SO PIN, or with --puk the PUK")
@json_option
def unblock(
    module: str | None,
    selector: str | None,
    by_puk: bool,
    allow_final_try: bool,
    as_json: bool,
    **sources: Any,
) -> None:
    """Give a token a new PIN and all its tries; key pairs stay."""
    with pins.opensc_takes_puk() if by_puk else nullcontext():
        token = choose_token(open_module(module), selector)
        info = token.info
        if by_puk:
            pins.check_locked(token)
        else:
            pins.check_so_pin_state(info, allow_final_try=allow_final_try)
        secret = _read_so_pin("the PUK" if by_puk else "the SO PIN", **sources)
        new = _read_new_pin("PIN", **sources)
        if by_puk:
            pins.unblock_with_puk(_again(token, info), secret, new)
        else:
            with kept_anew():
                pins.unblock_with_so_pin(
                    _again(token, info), secret, new, allow_final_try=allow_final_try
                )
    _report(info, f"Token {info.label} is unblocked and has a new PIN.", as_json=as_json)


def _change_users(token: Token, access: TokenAccess, sources: dict[str, Any]) -> None:
    source = PinSource(
        fd=access.pin_fd,
        file=access.pin_file,
        allow_final_try=access.allow_final_try,
        as_it_is=True,
    )
    info = token.info
    credential = source.obtain(info)
    if credential.pin is None:
        raise TokenError(
            f"The PIN of token {info.label} is typed at its reader; "
            f"change it with its vendor's own tool."
        )
    new = _read_new_pin("PIN", **sources)
    with kept_anew():
        token = _again(token, info)
        pins.change_pin(token, credential.pin, new, allow_final_try=credential.allow_final_try)


def _again(token: Token, info: TokenInfo) -> Token:
    """Return the token that told this of itself before the secrets were typed; no other gets them.

    That takes long, and a module may tell of it still where another is in its reader by now.
    Raises TokenAwayError.
    """
    return choose_token(token.module, info.identity)


def _read_so_pin(
    what: str,
    *,
    so_pin_fd: int | None,
    so_pin_file: Path | None,
    as_it_is: bool = False,
    **_: Any,
) -> str:
    return read_secret(
        what,
        option="so-pin",
        fd=so_pin_fd,
        file=so_pin_file,
        variable=SO_PIN_VARIABLE,
        as_it_is=as_it_is,
    )


def _read_new_pin(what: str, *, new_pin_fd: int | None, new_pin_file: Path | None, **_: Any) -> str:
    new = read_secret(
        f"the new {what}",
        option="new-pin",
        fd=new_pin_fd,
        file=new_pin_file,
        variable=NEW_PIN_VARIABLE,
        confirm=True,
    )
    if not new:
        raise UsageError(f"The new {what} is empty; choose one.")
    return new


def _report(info: TokenInfo, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"label": info.label, "serial": info.serial})
    else:
        click.echo(sentence)
