"""`carnet doctor`: part by part, what is right, and what to do where something is not.

Each part that `carnet connect` needs is looked at by itself. The first that is bad gives
the exit status, as it would there. No PIN is asked for and none is tried.
"""

import time

from carnet.counting import counted
from carnet.errors import (
    IPsecError,
    NoKeyPairLeftError,
    NoTokenError,
    TokenAwayError,
    TokenError,
    UnreachableError,
    UsageError,
)
from carnet.findings import Finding, Looks, Show, WarningError, look_at
from carnet.ipsec.driver import Bounded, Capabilities
from carnet.ipsec.drivers import find_driver, look_around
from carnet.moments import format_moment
from carnet.objectives import Objective, choose_option
from carnet.token.finding import MODULE_VARIABLE
from carnet.token.module import Module, Token
from carnet.token.presence import held_by_another
from carnet.token.profiles import profile_of
from carnet.token.readers import Reader, look_at_readers
from carnet.token.session import check_pin_state, open_public_session
from carnet.wire.documents import Cover
from carnet.wire.envelope import SPLIT
from carnet.wire.fault import WireError
from carnet.wire.split import couples_of
from softhsm.damage import what_is_damaged
from softhsm.kept import lost_tokens
from token_client.booklet import UNNAMED_OFFICER, check_cover
from token_client.clock import slowness
from token_client.config import ClientConfig
from token_client.host import look_at_host
from token_client.memory import memory_directory
from token_client.preflight import check_block, check_name_servers
from token_client.tokens import checked_cover, load, pin_state, read_facts
from token_client.whereabouts import known_here


def examine(config: ClientConfig, selector: str | None, show: Show) -> list[Finding]:
    """Look at every part that `carnet connect` needs, as look_at() does."""
    return look_at(_Examination(config, selector).parts(), show)


class _Examination:
    """Looks at the parts in the order in which `carnet connect` meets them."""

    def __init__(self, config: ClientConfig, selector: str | None) -> None:
        self._config = config
        self._selector = selector or config.token
        self._module: Module | None = None
        self._token: Token | None = None
        self._cover: Cover | None = None

    def parts(self) -> Looks:
        return (
            ("module", self._look_at_module),
            ("readers", self._look_at_readers),
            ("token", self._look_at_token),
            ("IPsec", self._look_at_ipsec),
            ("PIN", self._look_at_pin),
            ("key pairs", self._look_at_pairs),
            ("Host", self._look_at_host),
            ("clock", self._look_at_clock),
            ("memory", _look_at_memory),
        )

    def _look_at_module(self) -> str:
        self._module = load(self._config)
        if lost := lost_tokens():
            raise WarningError(" ".join(lost))
        return f"{self._module.path} is loaded"

    def _look_at_readers(self) -> str:
        readers = look_at_readers()
        if self._has_slots_of_its_own(readers or ()):
            return "not needed: the module has slots of its own"
        if readers is None and self._module is None:
            raise TokenError(
                "Whether a reader is needed is known with the module only; see to that first."
            )
        if readers is None:
            raise TokenError(
                "The smart-card service does not run; start it (`systemctl start pcscd.socket`)."
            )
        if not readers:
            raise TokenError("No reader is plugged in; plug one in, or the token itself.")
        if any(one.held for one in readers) and (held := self._what_is_held()):
            raise TokenError(held)
        occupied = sum(reader.occupied for reader in readers)
        names = ", ".join(reader.name for reader in readers)
        return f"{len(readers)} with {counted(occupied, 'card')}: {names}"

    def _what_is_held(self) -> str | None:
        """Say which card another program has for itself, where that is in the way."""
        if self._module is None:
            return None
        try:
            self._module.choose(self._selector)
        except TokenAwayError:
            return held_by_another(self._module)
        except TokenError:
            return None  # there are several, none of which is held
        return None

    def _has_slots_of_its_own(self, readers: tuple[Reader, ...]) -> bool:
        return not {reader.slot_name for reader in readers}.issuperset(self._slot_names())

    def _slot_names(self) -> list[str]:
        try:
            return self._module.slot_names() if self._module else []
        except TokenError:
            return []

    def _look_at_token(self) -> str:
        if self._module is None:
            raise TokenError("No token can be seen without the module; see to that first.")
        try:
            self._token = self._module.choose(self._selector)
        except TokenAwayError as error:
            raise TokenError(self._why_away(error)) from error
        info = self._token.info
        found = f"{info.label}, serial {info.serial}, {info.model}"
        if damage := what_is_damaged(info.serial):
            raise WarningError(f"{found}; {damage}")
        return found

    def _why_away(self, error: TokenAwayError) -> str:
        """Say of a card that another module may know that its module is to be named."""
        if self._module is not None and (held := held_by_another(self._module)):
            return held
        names = self._slot_names()
        others = (one for one in look_at_readers() or () if one.slot_name not in names)
        reader = next((one.name for one in others if one.occupied), None)
        if reader is not None and self._module is not None:
            return (
                f"{self._module.path.name} does not know the card in {reader}; name the card's own "
                f"module, such as opensc-pkcs11.so, with --module, in {MODULE_VARIABLE}, or as "
                f"`module` in client.toml."
            )
        if isinstance(error, NoTokenError) and self._module is not None:
            return (
                f"{self._module.path.name} shows no token; insert it, name its own module with "
                f"--module if it has another, or have the security officer initialise one."
            )
        return error.sentence

    def _look_at_pin(self) -> str:
        info = self._the_token().info
        check_pin_state(info, allow_final_try=False)
        return pin_state(info)

    def _look_at_pairs(self) -> str:
        token = self._the_token()
        facts = read_facts(token, self._config)
        with open_public_session(token) as session:
            self._cover = checked_cover(session, self._config)
        if self._cover is None:
            raise TokenError(
                "The token has no cover; have the security officer mint key pairs, or name the "
                "file that she gave you with --cover."
            )
        check_cover(token, self._config)
        if self._cover.custody == SPLIT:
            self._look_at_host_keys(self._cover)
        if self._cover.not_after is not None and self._cover.not_after <= time.time():
            raise TokenError("The booklet has expired; ask the security officer for a new one.")
        if facts.pairs_left == 0:
            raise NoKeyPairLeftError("No key pair is left; ask the officer for a new booklet.")
        until = f", the first until {facts.oldest_expiry}" if facts.oldest_expiry else ""
        if self._config.cover is not None and self._config.officer is None:
            profile = profile_of(token.info)
            if profile is not None and not profile.keeps_data:
                raise UsageError(UNNAMED_OFFICER)
            raise WarningError(
                f"{facts.pairs_left} left{until}, by a cover file that cannot be verified, unless "
                f"the token names its officer; name her certificate with --officer."
            )
        if facts.pairs_left < self._config.few_pairs:
            raise WarningError(
                f"Only {facts.pairs_left} left{until}; ask the security officer for a new booklet."
            )
        return f"{facts.pairs_left} left{until}, for {self._cover.user_id}"

    def _look_at_host_keys(self, cover: Cover) -> None:
        try:
            couples_of(cover.host_keys)
        except WireError as error:
            raise TokenError(
                f"The cover is in custody split and has no keys of the Host ({error}); have the "
                f"security officer mint anew."
            ) from error

    def _look_at_host(self) -> str:
        hosts = self._config.hosts or (self._cover.hosts if self._cover else ())
        if not hosts and self._token is not None:
            raise UnreachableError(
                "The Host's address is on the cover of the token, as far as there is a good one; "
                "see to that first."
            )
        if not hosts:
            raise UnreachableError("No token tells a Host's address; plug in yours.")
        known = known_here()
        sightings = [look_at_host(host, known) for host in hosts]
        found = next((one for one in sightings if one.answers), None)
        if found is None:
            failures = "; ".join(f"{one.host}: {one.failure}" for one in sightings)
            if any(one.wants_login for one in sightings):
                raise UnreachableError(
                    f"This network wants a login first ({failures}); log in to it with a browser."
                )
            raise UnreachableError(f"No Host answers ({failures}); check the network.")
        return f"{found.host} answers"

    def _look_at_ipsec(self) -> str:
        sightings = list(look_around(self._config.drivers))
        found = next((s.found for s in sightings if isinstance(s.found, Capabilities)), None)
        if found is None:
            meant = find_driver(self._config.drivers).name
            trouble = {str(sighting.name): sighting.trouble for sighting in sightings}
            raise IPsecError(trouble.get(meant) or str(sightings[0].trouble))
        if Objective.ESP not in found.objectives:
            raise IPsecError(
                f"{found.driver} {found.version} runs but cannot carry ESP; "
                f"load the kernel's ESP, or strongSwan's kernel-libipsec."
            )
        able = ", ".join(objective.label for objective in found.objectives)
        unless_named = choose_option((), (), self._config.minimum)
        if unless_named not in found.objectives:
            raise IPsecError(
                f"{found.driver} {found.version} runs but cannot carry {unless_named.label}, only "
                f"{able}, and `minimum` in client.toml wants it; change that, or use another "
                f"machine."
            )
        check_block(found, unless_named, self._config)
        if found.uses_assigned_servers:
            self._look_at_assigned_servers(found)
        return f"{found.driver} {found.version} carries {able}"

    def _look_at_assigned_servers(self, found: Capabilities) -> None:
        driver = find_driver(self._config.drivers)
        if isinstance(driver, Bounded):
            driver.check_limits(())
        warning = check_name_servers(driver, found, Objective.ESP, None, self._config)
        if warning is not None:
            raise WarningError(warning)

    def _look_at_clock(self) -> str:
        """Judge by the booklet: Host tells strangers nothing, the time of day included."""
        if self._cover is None:
            return "nothing here tells whether it is right"
        slow = slowness(self._cover, time.time())
        if slow is not None:
            raise WarningError(slow)
        minted = format_moment(self._cover.issued_at)
        return f"later than the booklet ({minted}), and nothing here tells more"

    def _the_token(self) -> Token:
        if self._token is None:
            raise TokenError("There is no token to look at; see to that first.")
        return self._token


def _look_at_memory() -> str:
    directory = memory_directory()
    if directory is None:
        raise WarningError(
            "No file system in memory: an interrupted request cannot be sent again, and a pulled "
            "token is noticed with --foreground only; mount a tmpfs on /run."
        )
    return f"{directory} keeps what must not reach a disk"
