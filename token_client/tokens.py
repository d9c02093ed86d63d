"""`carnet tokens`: what the tokens tell without a PIN."""

from dataclasses import dataclass

from carnet.cover import read_unverified_cover
from carnet.token.module import Token, find_module, load_module
from carnet.token.session import open_public_session
from softhsm.configuration import use_default
from token_client.config import ClientConfig


@dataclass(frozen=True)
class TokenFacts:
    """One token; user and Targets stand on the cover and are not verified without the PIN."""

    label: str
    serial: str
    model: str
    pin: str
    user_id: str | None
    targets: tuple[str, ...]
    hosts: tuple[str, ...]


def list_tokens(config: ClientConfig) -> list[TokenFacts]:
    """Return the initialised tokens; raises TokenError if the module fails."""
    use_default()
    module = load_module(find_module(config.module))
    return [_facts(token) for token in module.present() if token.info.initialised]


def describe(token: TokenFacts) -> str:
    """Return a token as one line for a person."""
    cover = f"{token.user_id} to {', '.join(token.targets)}" if token.user_id else "no cover"
    return f"{token.label}  serial {token.serial}  {token.model}  PIN {token.pin}  {cover}"


def _facts(token: Token) -> TokenFacts:
    info = token.info
    with open_public_session(token) as session:
        cover = read_unverified_cover(session)
    pin = "set" if info.pin_set else "not set"
    if info.pin_locked:
        pin = "locked"
    elif info.pin_final_try:
        pin = "one try left"
    elif info.pin_count_low:
        pin = "mistyped before"
    return TokenFacts(
        label=info.label,
        serial=info.serial,
        model=info.model,
        pin=pin,
        user_id=cover.user_id if cover else None,
        targets=cover.targets if cover else (),
        hosts=cover.hosts if cover else (),
    )
