"""Reading a configuration again while a service serves (SIGHUP)."""

import ssl
from collections.abc import Callable, Iterable

import structlog

from carnet.config import Section
from carnet.errors import CarnetError
from carnet.link import LinkSection, check_name, server_context

log = structlog.get_logger()


def reload_with(take_over: Callable[[], list[str]]) -> None:
    """Take a configuration over, and log what needs a start anew.

    One that is wrong changes nothing: `take_over` raises CarnetError before it does anything.
    """
    try:
        needs_start = take_over()
    except CarnetError as error:
        log.warning("not-reloaded", reason=error.sentence)
    else:
        log.info("reloaded", needs_start=needs_start)


def check_certificate(link: LinkSection, role: str, name: str) -> None:
    """Raise UsageError for a certificate of that agent that cannot be used."""
    server_context(link)  # looks at all of it
    check_name(link, role, name)


def renew_certificate(context: ssl.SSLContext, link: LinkSection, role: str, name: str) -> None:
    """Show another certificate of that agent from the next connection on.

    Raises UsageError for one that cannot be used, and then shows the old one. Whom to
    trust does not change: a context forgets no authority.
    """
    check_certificate(link, role, name)
    context.load_cert_chain(link.certificate, link.key)


def differing(old: Section, new: Section, names: Iterable[str]) -> list[str]:
    """Return those of some settings that are not what they were."""
    return [name for name in names if getattr(old, name) != getattr(new, name)]
