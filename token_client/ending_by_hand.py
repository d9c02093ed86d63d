"""`carnet disconnect`: ending tunnels, each on its own, or only letting go what is held back."""

from collections.abc import Callable
from functools import partial

import msgspec

from carnet.errors import AwayError, IPsecError, UsageError
from carnet.ipsec import block
from token_client import closing, name_servers
from token_client.by_record import Ends
from token_client.leaving import may_be_kept
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.session_states import BY_HAND, EndBegun, Released
from token_client.sessions import SessionStore
from token_client.status import TunnelState, tunnels
from token_client.watched import is_watched

_MAY_GO_ON = "The tunnel to {} may go on until there is an answer; {} ends it then."
_AGENT, _BY_HAND = "the agent of this machine", "`carnet disconnect`"


class Ended(msgspec.Struct, frozen=True):
    """What came of ending tunnels: each on its own."""

    states: list[TunnelState]
    failures: list[IPsecError]
    """Of those that could not be ended."""


def end(driver: Ends, named: str | None, tell: Callable[[str], None]) -> Ended:
    """End the tunnels of that name or Target, all where none is named.

    What Target may still keep is told. Raises UsageError if a name fits none, IPsecError where
    no daemon answers: that those on record are to end is in their records then.
    """
    store = SessionStore(memory_directory())
    try:
        states = tunnels(driver)
    except IPsecError as error:
        raise _noted(store, named, error) from error
    doomed = [state for state in states if named in {None, state.name, state.label}]
    if named is not None and not doomed:
        known = ", ".join(sorted({state.label for state in states})) or "none"
        raise UsageError(f"There is no tunnel {named!r}; `carnet status` shows: {known}.")
    failures = list[IPsecError]()
    ended = [state for state in doomed if _is_ended(driver, store, state, tell, failures.append)]
    stay = name_servers.restore_those_of_none(driver, store) if named is None else None
    if stay is not None:
        tell(stay)
    return Ended(ended, failures)


def _is_ended(
    driver: Ends,
    store: SessionStore,
    state: TunnelState,
    tell: Callable[[str], None],
    failed: Callable[[IPsecError], None],
) -> bool:
    """End one; tell whether it is."""
    if state.trouble is not None:
        failed(_noted(store, state.name, IPsecError(state.trouble)))
        return False
    try:
        heard = closing.end_session(driver, store, state.name)
    except KeyboardInterrupt:
        _tell_what_is_kept(state.session, heard=False, tell=tell, ask=False)
        raise
    except IPsecError as error:
        failed(error)
        return False
    _tell_what_is_kept(state.session, heard, tell)
    return True


def _noted(store: SessionStore, named: str | None, error: IPsecError) -> IPsecError:
    """Have it in the records that sessions are to end whose daemon does not answer.

    Returns the error, which says that of them, and how that goes on.
    """
    noted = [
        session
        for each in store.all()
        if named in {None, each.name, each.target}
        and (session := store.change(each.name, EndBegun())) is not None
        and session.stage.is_to_end
    ]
    if not noted:
        fits = any(named in {None, each.name, each.target} for each in store.all())
        known = "" if fits else f"; no record tells of a tunnel {named!r}"
        return IPsecError(f"{error.sentence.rstrip('.')}{known}.")
    targets = " and ".join(sorted({session.target for session in noted}))
    what = "the session" if len(noted) == 1 else "each session"
    watched = all(is_watched(memory_directory(), session.name) for session in noted)
    by = f"by {_AGENT} or another {_BY_HAND}" if watched else f"by another {_BY_HAND}"
    return IPsecError(f"{error.sentence.rstrip('.')}; {what} to {targets} is to end, {by}.")


def _tell_what_is_kept(
    session: Session | None, heard: bool | None, tell: Callable[[str], None], *, ask: bool = True
) -> None:
    kept = may_be_kept(session, heard, ask=ask) if session else None
    if kept is not None:
        tell(kept)


def release_by_hand(
    driver: Ends,
    named: str | None,
    tell: Callable[[str], None],
    leave_to_agent: Callable[[Session], bool],
) -> list[str]:
    """End sessions and lift their blocks, also where the daemon does not answer.

    What a daemon may have of one then, or systemd-resolved, is left to its agent, which may not
    be had.

    Returns their names, or Targets where these are known. Raises UsageError if a name fits
    none, IPsecError if the packet filter refuses.
    """
    store = SessionStore(memory_directory())
    recorded = {session.name: session for session in store.all()}
    by = {session.block for session in recorded.values()}
    labels = dict.fromkeys(block.names(by), "")
    labels |= {name: session.target for name, session in recorded.items()}
    doomed = {name: label or name for name, label in labels.items() if named in (None, name, label)}
    if named is not None and not doomed:
        raise UsageError(f"There is nothing of a tunnel {named!r} to release.")
    for name, label in doomed.items():
        left, staying = list[IPsecError](), list[IPsecError]()
        let_go = partial(closing.release, not_restored=staying.append)
        heard = closing.end_session(driver, store, name, left.append, BY_HAND, let_go)
        known = store.change(name, Released(BY_HAND)) if left or staying else None
        agent = known is not None and known.stage.is_released and leave_to_agent(known)
        if not agent:
            store.drop(name)
        may_go_on = any(isinstance(each, AwayError) for each in left)
        for said in (
            *(each.sentence for each in left),
            *map(name_servers.and_then, staying),
            *([_MAY_GO_ON.format(label, _AGENT if agent else _BY_HAND)] * may_go_on),
        ):
            tell(said)
        if heard is not None:  # else Host would have to be asked, and perhaps does not answer
            _tell_what_is_kept(recorded.get(name), heard, tell, ask=False)
    return list(doomed.values())
