"""One `carnet connect`: from the token in its reader to a tunnel that is watched over."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from carnet import interruption
from carnet.errors import IPsecError
from carnet.objectives import Objective
from carnet.pin import PinSource
from token_client import connect as connecting
from token_client import plugging, preflight, removal
from token_client.alone import alone
from token_client.beside import refuse_wish
from token_client.bringing_up import CUT_OFF
from token_client.by_record import ByRecord
from token_client.clock import slowness
from token_client.closing import end_session
from token_client.faults import reason
from token_client.heir import Heir
from token_client.known import is_known, is_recorded
from token_client.means import Wish
from token_client.memory import memory_directory
from token_client.opened import show, show_plan
from token_client.overdue import end_what_is_over
from token_client.sessions import SessionStore
from token_client.steps import Steps
from token_client.unrecorded import unrecorded

if TYPE_CHECKING:
    from carnet.ipsec.driver import Capabilities, Driver
    from token_client.booklet import Booklet
    from token_client.config import ClientConfig
    from token_client.connect import Connected
    from token_client.record import Session

Tell = Callable[[str], None]

_STANDS = "the tunnel stands already, and `carnet disconnect` ends it"
_NOT_ENDED = (
    "the tunnel that stood could not be ended whole ({}); its key pair opens no other, and `carnet"
    " disconnect {}` tries it again"
)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the traveller asked for."""

    target: str | None
    """None: the one on her token."""
    option: Objective
    networks: tuple[str, ...] | None
    """None: all that she may have; none: Target alone."""
    lifetime: int | None
    """Seconds; None: as long as allowed."""
    token: str | None
    """Its label or serial number; None: the only one."""
    source: PinSource
    wait: bool
    foreground: bool
    dry_run: bool
    allow_weak: bool
    as_json: bool


def open_tunnel(means: "Driver", config: "ClientConfig", order: Order, tell: Tell) -> None:
    """Open the tunnel, show it and have it watched over; in a dry run, show what it would be.

    Raises CarnetError, TokenError before a key pair is spent wherever it can be known.
    """
    pulled = partial(removal.end_unless_kept, means, config)
    plug = plugging.Plug(config, order.token, wait=order.wait, tell=tell, pulled=pulled)
    capabilities = preflight.check_means(means, order.option, order.networks)
    preflight.check_block(capabilities, order.option, config)
    warning = preflight.check_name_servers(
        means, capabilities, order.option, order.networks, config
    )
    if warning is not None:
        tell(warning)
    credential = plug.obtain_pin(order.source)
    with _cared_for(means, Heir(config), tell) as standing:
        attempt = partial(_attempt, means, capabilities, config, order, standing)
        with alone(partial(tell, "Another `carnet connect` is at work here; waiting for it.")):
            connected = plug.use(credential, attempt)
        if connected is not None:
            shown = partial(show, connected, config, tell, as_json=order.as_json)
            watch = _stay if order.foreground else _leave
            watch(means, connected.session, config, shown, tell, standing)


class _Standing(msgspec.Struct):
    """The tunnel that this command has brought up, as soon as it stands."""

    heir: Heir
    session: "Session | None" = None
    watched: bool = False
    """Whether somebody watches over it by now."""
    stayed_with: bool = False
    """Whether this command itself does, and takes it out whatever happens."""

    def stands(self, session: "Session") -> None:
        """Remember it."""
        self.session = session


@contextlib.contextmanager
def _cared_for(driver: "Driver", heir: Heir, tell: Tell) -> Iterator[_Standing]:
    """Let no interrupt and no error leave a tunnel that stands unwatched, or unmentioned.

    Raises KeyboardInterrupt with the half sentence that says what became of it; an error is
    raised as it was, when that was told. An end that fails takes the place of neither.
    """
    standing = _Standing(heir)
    try:
        yield standing
    except KeyboardInterrupt as interrupt:
        if standing.session is None or interrupt.args:
            raise
        if standing.watched:
            raise KeyboardInterrupt(_STANDS) from None
        raise KeyboardInterrupt(_ended_here(driver, standing.session)) from None
    except Exception:
        if standing.session is None or standing.stayed_with:
            raise
        became = _STANDS if standing.watched else _ended_here(driver, standing.session)
        tell(_sentence(became))
        raise


def _ended_here(driver: "Driver", session: "Session") -> str:
    """End a tunnel that nobody watches over; return the half sentence on what became of it."""
    try:
        end_session(driver, SessionStore(memory_directory()), session.name)
    except Exception as error:  # noqa: BLE001  what it was ended for is raised
        return _NOT_ENDED.format(reason(error), session.target)
    return CUT_OFF


def _sentence(half: str) -> str:
    return f"{half[0].upper()}{half[1:]}."


def _attempt(
    means: "Driver",
    capabilities: "Capabilities",
    config: "ClientConfig",
    order: Order,
    standing: _Standing,
    booklet: "Booklet",
) -> "Connected | None":
    """Connect with the next pair of the booklet; in a dry run show the plan, and None."""
    target = preflight.choose_target(booklet, order.target)
    wish = Wish(target, int(order.option), order.networks, order.lifetime)
    store = SessionStore(memory_directory())
    if not order.dry_run:
        end_what_is_over(ByRecord(config.drivers, means), store, _say)
    refuse_wish(wish, store.all(), unrecorded(means, store))
    if order.dry_run:
        show_plan(preflight.plan(booklet, capabilities, wish, config), as_json=order.as_json)
        return None
    slow = slowness(booklet.cover, time.time())
    if slow is not None:
        _say(slow)
    nat = preflight.check_nat(booklet, wish, config)
    if not order.as_json:
        user_id = booklet.cover.user_id
        click.echo(f"Connecting {user_id} to {wish.target} by {order.option.label}")
    return connecting.connect(
        booklet,
        means,
        capabilities,
        wish,
        config,
        Steps(quiet=order.as_json),
        stands=standing.stands,
        heir=standing.heir,
        nat=nat,
        allow_weak=order.allow_weak,
    )


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


def _leave(
    driver: "Driver",
    session: "Session",
    config: "ClientConfig",
    shown: Callable[[], None],
    tell: Tell,
    standing: _Standing,
) -> None:
    """Have tunnel and token watched over in the background, and show the tunnel.

    What fails at showing, such as a pipe that was closed, leaves no tunnel unwatched.
    """
    from token_client import background  # noqa: PLC0415  one of the two, when it stands

    watched = standing.heir.begin(session)
    if not watched:
        background.look_once(driver, session, config, tell)
    standing.watched = True
    _refuse_what_was_ended(driver, session, standing)
    shown()
    if not watched:
        tell("There is no file system in memory here: nobody notices if the token is pulled.")
    interruption.let_go(_STANDS)


def _refuse_what_was_ended(driver: "Driver", session: "Session", standing: _Standing) -> None:
    """Show no tunnel that `carnet disconnect` has ended as it came up. Raises IPsecError."""
    if memory_directory() is None or is_known(driver, session):
        return
    standing.session = None
    raise IPsecError(
        f"The tunnel to {session.target} was ended as it came up, by another command;"
        " run `carnet connect` for a new one."
    )


def _stay(
    driver: "Driver",
    session: "Session",
    config: "ClientConfig",
    shown: Callable[[], None],
    tell: Tell,
    standing: _Standing,
) -> None:
    """Show the tunnel, and watch over it and the token until Ctrl-C, which ends it.

    Ctrl-Z does not stop that. Whatever of its session is left is for the agent to go on with.
    """
    from token_client.foreground import stay  # noqa: PLC0415  likewise
    from token_client.unstopped import unstopped  # noqa: PLC0415  likewise

    def begin() -> None:
        shown()
        tell("The tunnel stands until Ctrl-C.")
        interruption.let_go(_STANDS)

    standing.stayed_with = True
    try:
        with contextlib.suppress(KeyboardInterrupt), unstopped(tell):
            stay(driver, session, config, tell, begin, standing.heir.begin_if_it_can)
    finally:
        if is_recorded(session):
            standing.heir.take_over()
        else:
            standing.heir.dismiss()
