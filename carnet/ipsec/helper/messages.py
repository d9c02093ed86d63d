"""What an ordinary user's command may ask of carnet-helper, and what comes back: JSON.

Each field has its type and its bounds, and what is not listed is refused. An address or a network
is in its canonical form, so that whatever is told of it reads it as it was checked: whoever decodes
a message looks at that. What a tunnel is besides (this end is the Client's, any local address, no
suites for benchmarks) cannot be said.
"""

from dataclasses import fields
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from carnet.canonical import check_addresses, check_networks
from carnet.errors import (
    DaemonGoneError,
    DaemonSilentError,
    HelperAwayError,
    IKERefusedError,
    IKESilentError,
    IKEUnprovenError,
    IPsecError,
    NothingLeftError,
    TakenError,
    TunnelLeftError,
)
from carnet.ipsec.block.closed import Closed
from carnet.ipsec.spec import AhHalf, Mode, Role, TunnelSpec
from carnet.objectives import Objective

MAX_MESSAGE = 16 * 1024
"""Bytes of a call."""
MAX_ANSWER = 128 * 1024

Name = Annotated[str, Meta(pattern=r"\Acarnet-[0-9a-f]{32}\Z")]
"""Of a tunnel; made of its Request ID."""
Word = Annotated[str, Meta(max_length=80, pattern=r"\A[0-9a-z_-]+\Z")]
Identity = Annotated[str, Meta(pattern=r"\A(ah-)?[ctp]-[0-9a-f]{16,64}\.carnet\Z")]
"""Of one session of Carnet's: a key that a user loads must fit no other connection here."""
Address = Annotated[str, Meta(max_length=45, pattern=r"\A[0-9A-Fa-f.:]+\Z")]
"""Without a zone (RFC 4007 section 11), which may be any text: it would reach nft and the rest."""
Network = Annotated[str, Meta(max_length=49, pattern=r"\A[0-9A-Fa-f.:]+(/[0-9]{1,3})?\Z")]
"""Not with a netmask, which nft does not know."""
Secret = Annotated[bytes, Meta(min_length=32, max_length=64)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Proposals = Annotated[tuple[Word, ...], Meta(max_length=8)]
Networks = Annotated[tuple[Network, ...], Meta(max_length=32)]
HeldBack = Annotated[tuple[Network, ...], Meta(min_length=1, max_length=32)]
Addresses = Annotated[tuple[Address, ...], Meta(min_length=1, max_length=8)]
Places = Annotated[tuple[tuple[Address, Port], ...], Meta(max_length=32)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No field optional, none unknown."""


class Half(_Strict, frozen=True, kw_only=True):
    """carnet.ipsec.spec.AhHalf."""

    local_identity: Identity
    remote_identity: Identity
    psk: Secret
    ppk: Secret | None
    ppk_id: Identity | None

    def __repr__(self) -> str:
        """Leave the secrets out."""
        return f"Half({self.local_identity!r})"


class Spec(_Strict, frozen=True, kw_only=True):
    """carnet.ipsec.spec.TunnelSpec, as far as an ordinary user has a say in it."""

    name: Name
    objective: Objective
    mode: Mode
    ike_version: Annotated[int, Meta(ge=1, le=2)]
    remote_addresses: Addresses
    local_identity: Identity
    remote_identity: Identity
    ike_proposals: Proposals
    esp_proposals: Proposals
    ah_proposals: Proposals
    remote_networks: Networks
    virtual_address: Address | None
    psk: Secret
    ppk: Secret | None
    ppk_id: Identity | None
    force_udp: bool
    lifetime: Annotated[int, Meta(ge=1, le=366 * 86400)]
    dead_peer_seconds: Annotated[int, Meta(ge=1, le=3600)]
    ah_half: Half | None

    def __post_init__(self) -> None:
        check_networks(self.remote_networks)
        inside = (self.virtual_address,) if self.virtual_address is not None else ()
        check_addresses(self.remote_addresses + inside)

    def __repr__(self) -> str:
        """Leave the secrets out."""
        return f"Spec({self.name!r})"


FIXED: dict[str, Any] = {
    "role": Role.CLIENT,
    "local_addresses": (),
    "local_networks": (),
    "allow_weak": False,
}
"""What a user has no say in."""


def to_message(spec: TunnelSpec) -> Spec:
    """Return a spec as it is sent. Raises IPsecError for what carnet-helper would not do."""
    for name, value in FIXED.items():
        if getattr(spec, name) != value:
            raise IPsecError(
                f"carnet-helper makes no tunnel with another {name}; run this as root."
            )
    said = {name: getattr(spec, name) for name in Spec.__struct_fields__}
    half = spec.ah_half
    parts = {each.name: getattr(half, each.name) for each in fields(AhHalf)} if half else None
    return Spec(**{**said, "ah_half": Half(**parts) if parts else None})


def to_spec(said: Spec) -> TunnelSpec:
    """Return the spec that a message says. Raises IPsecError if it is none."""
    named = {name: getattr(said, name) for name in Spec.__struct_fields__}
    half = said.ah_half
    parts = {name: getattr(half, name) for name in Half.__struct_fields__} if half else None
    return TunnelSpec(**{**named, **FIXED, "ah_half": AhHalf(**parts) if parts else None})


class Block(_Strict, frozen=True, kw_only=True):
    """carnet.ipsec.block.Closed; whether ESP is in user space the helper finds out itself."""

    name: Name
    networks: HeldBack
    targets: Addresses
    hosts: Places

    def __post_init__(self) -> None:
        check_networks(self.networks)
        check_addresses((*self.targets, *(address for address, _ in self.hosts)))


def to_block(closed: Closed) -> Block:
    """Return a block as it is sent."""
    return Block(**{name: getattr(closed, name) for name in Block.__struct_fields__})


class Call(_Strict, frozen=True, kw_only=True, tag_field="call", tag=str.lower):
    """One thing to do."""


class Capabilities(Call, frozen=True, kw_only=True):
    """Driver.capabilities()."""


class May(Call, frozen=True, kw_only=True):
    """Bounded.check_limits()."""

    networks: Networks

    def __post_init__(self) -> None:
        check_networks(self.networks)


class Install(Call, frozen=True, kw_only=True):
    """Driver.install()."""

    spec: Spec


class Up(Call, frozen=True, kw_only=True):
    """Driver.up()."""

    spec: Spec


class Confirm(Call, frozen=True, kw_only=True):
    """Driver.confirm()."""

    spec: Spec


class Forget(Call, frozen=True, kw_only=True):
    """Driver.forget_secrets()."""

    name: Name


class Resumes(Call, frozen=True, kw_only=True):
    """Driver.resumes."""


class Resumable(Call, frozen=True, kw_only=True):
    """Driver.resumable(), of the caller's own."""


class Resume(Call, frozen=True, kw_only=True):
    """Driver.resume()."""

    name: Name


class Leave(Call, frozen=True, kw_only=True):
    """Driver.take_leave()."""

    name: Name


class Down(Call, frozen=True, kw_only=True):
    """Driver.down()."""

    name: Name


class Status(Call, frozen=True, kw_only=True):
    """Driver.status(), of the caller's own."""


class Installed(Call, frozen=True, kw_only=True):
    """Driver.installed(), of the caller's own."""


class Remembered(Call, frozen=True, kw_only=True):
    """Driver.remembered(), of the caller's own."""


class Watch(Call, frozen=True, kw_only=True):
    """Driver.watch(), of the caller's own: an empty answer, then one for each event."""


class Works(Call, frozen=True, kw_only=True):
    """PacketFilter.works()."""


class Close(Call, frozen=True, kw_only=True):
    """PacketFilter.close()."""

    block: Block


class Lift(Call, frozen=True, kw_only=True):
    """PacketFilter.lift()."""

    name: Name


class Names(Call, frozen=True, kw_only=True):
    """PacketFilter.names(), of the caller's own."""


class Fit(Call, frozen=True, kw_only=True):
    """Inside.fit(), for the virtual address that the tunnel has."""

    name: Name
    mtu: Annotated[int, Meta(ge=576, le=65535)]


class LeadAgain(Call, frozen=True, kw_only=True):
    """Routing.lead_again()."""

    name: Name


class Servers(Call, frozen=True, kw_only=True):
    """Inside.use_servers()."""

    name: Name
    servers: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=8)]

    def __post_init__(self) -> None:
        check_addresses(self.servers)


class Follow(Call, frozen=True, kw_only=True):
    """Inside.follow_servers()."""

    name: Name


class Whose(Call, frozen=True, kw_only=True):
    """Inside.whose_servers(), if the caller's own."""


class Restore(Call, frozen=True, kw_only=True):
    """Inside.restore_servers()."""

    name: Name


AnyCall = (
    Capabilities | May | Install | Up | Confirm | Forget | Resumes | Resumable | Resume | Leave
    | Down | Status | Installed | Remembered | Watch | Works | Close | Lift | Names | Fit | Servers
    | LeadAgain | Follow | Whose | Restore
)  # fmt: skip


def name_of(call: Call) -> str | None:
    """Return of which tunnel a call is; None where it is of none."""
    of = getattr(call, "spec", None) or getattr(call, "block", None) or call
    return getattr(of, "name", None)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a call: a result, or the sentence of an error of one of our kinds."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    sentence: str = ""


_ERRORS: dict[str, type[IPsecError]] = {
    each.__name__: each
    for each in (
        *(IPsecError, DaemonSilentError, DaemonGoneError, NothingLeftError, TunnelLeftError),
        *(HelperAwayError, TakenError),
        *(IKESilentError, IKEUnprovenError, IKERefusedError),
    )
}


def answer_of(result: object) -> bytes:
    """Return a result as it is sent."""
    return msgspec.json.encode(Answer(result=msgspec.Raw(msgspec.json.encode(result))))


def failure_of(error: IPsecError) -> bytes:
    """Return an error as it is sent."""
    kind = type(error).__name__
    known = kind if kind in _ERRORS else IPsecError.__name__
    return msgspec.json.encode(Answer(error=known, sentence=error.sentence))


def result_of(data: bytes, type_: Any) -> Any:
    """Return what an answer holds. Raises IPsecError: the one that it tells, or for nonsense."""
    try:
        answer = msgspec.json.decode(data, type=Answer)
        if answer.error is None:
            return msgspec.json.decode(answer.result, type=type_)
    except msgspec.MsgspecError as error:
        raise IPsecError(
            "carnet-helper is of another version; restart it (systemctl restart carnet-helper)."
        ) from error
    raise _ERRORS.get(answer.error, IPsecError)(answer.sentence)
