"""PowerShell parsed with tree-sitter's grammar, and held against the vendor's reference.

The tables are from Microsoft's reference of the modules NetSecurity and NetTCPIP (Windows
Server 2022): for each cmdlet its parameters, and for those with a closed list its values.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_powershell.language()))

_CIPHERS = frozenset(
    ["None", "DES", "DES3", "AES128", "AES192", "AES256", "AESGCM128", "AESGCM192", "AESGCM256"]
)
_HASHES = frozenset(
    ["None", "MD5", "SHA1", "SHA256", "SHA384", "AESGMAC128", "AESGMAC192", "AESGMAC256"]
)
_GROUPS = frozenset(["None", "DH1", "DH2", "DH14", "DH19", "DH20", "DH24", "SameAsMainMode"])
_SECURITY = frozenset(["None", "Request", "Require"])

VALUES = {
    "-Encryption": _CIPHERS,
    "-Hash": _HASHES,
    "-AHHash": _HASHES,
    "-ESPHash": _HASHES,
    "-KeyExchange": _GROUPS,
    "-PerfectForwardSecrecyGroup": _GROUPS,
    "-Encapsulation": frozenset({"None", "AH", "ESP", "AH,ESP"}),
    "-Mode": frozenset(["None", "Tunnel", "Transport"]),
    "-KeyModule": frozenset(["Default", "IKEv1", "AuthIP", "IKEv2"]),
    "-InboundSecurity": _SECURITY,
    "-OutboundSecurity": _SECURITY,
    "-PolicyStore": frozenset({"ActiveStore"}),
    "-ErrorAction": frozenset({"SilentlyContinue"}),
}
"""Of -PolicyStore the one that we allow ourselves: another would keep the key on disk."""

_SET = frozenset(
    [
        "-PolicyStore",
        "-GPOSession",
        "-Name",
        "-DisplayName",
        "-Description",
        "-Group",
        "-Proposal",
        "-Default",
    ]
)
_FOUND = frozenset(
    [
        "-All",
        "-DisplayName",
        "-PolicyStore",
        "-GPOSession",
        "-TracePolicyStore",
        "-Description",
        "-DisplayGroup",
        "-Group",
        "-PassThru",
        "-WhatIf",
        "-Confirm",
        "-ErrorAction",
    ]
)
_KINDS = ("Rule", "MainModeRule", "QuickModeCryptoSet", "MainModeCryptoSet", "Phase1AuthSet")

PARAMETERS = {
    "New-NetIPsecAuthProposal": frozenset({"-Machine", "-PreSharedKey"}),
    "New-NetIPsecPhase1AuthSet": _SET,
    "New-NetIPsecMainModeCryptoProposal": frozenset({"-Encryption", "-KeyExchange", "-Hash"}),
    "New-NetIPsecMainModeCryptoSet": _SET | {"-MaxMinutes", "-MaxSessions", "-ForceDiffieHellman"},
    "New-NetIPsecMainModeRule": frozenset(
        [
            "-PolicyStore",
            "-GPOSession",
            "-Name",
            "-DisplayName",
            "-Description",
            "-Group",
            "-Enabled",
            "-Profile",
            "-Platform",
            "-MainModeCryptoSet",
            "-Phase1AuthSet",
            "-LocalAddress",
            "-RemoteAddress",
        ]
    ),
    "New-NetIPsecQuickModeCryptoProposal": frozenset(
        ["-Encryption", "-AHHash", "-ESPHash", "-MaxKiloBytes", "-MaxMinutes", "-Encapsulation"]
    ),
    "New-NetIPsecQuickModeCryptoSet": _SET | {"-PerfectForwardSecrecyGroup"},
    "New-NetIPsecRule": frozenset(
        [
            "-PolicyStore",
            "-GPOSession",
            "-IPsecRuleName",
            "-DisplayName",
            "-Description",
            "-Group",
            "-Enabled",
            "-Profile",
            "-Platform",
            "-Mode",
            "-InboundSecurity",
            "-OutboundSecurity",
            "-QuickModeCryptoSet",
            "-Phase1AuthSet",
            "-Phase2AuthSet",
            "-KeyModule",
            "-AllowWatchKey",
            "-AllowSetKey",
            "-LocalTunnelEndpoint",
            "-RemoteTunnelEndpoint",
            "-RemoteTunnelHostname",
            "-ForwardPathLifetime",
            "-EncryptedTunnelBypass",
            "-RequireAuthorization",
            "-User",
            "-Machine",
            "-LocalAddress",
            "-RemoteAddress",
            "-Protocol",
            "-LocalPort",
            "-RemotePort",
            "-InterfaceAlias",
            "-InterfaceType",
        ]
    ),
    "New-NetIPAddress": frozenset(
        [
            "-IPAddress",
            "-InterfaceAlias",
            "-DefaultGateway",
            "-AddressFamily",
            "-Type",
            "-PrefixLength",
            "-ValidLifetime",
            "-PreferredLifetime",
            "-SkipAsSource",
            "-PolicyStore",
            "-InterfaceIndex",
        ]
    ),
    "Remove-NetIPAddress": frozenset(
        ["-IPAddress", "-InterfaceIndex", "-InterfaceAlias", "-PolicyStore", "-Confirm"]
    ),
    "Find-NetRoute": frozenset(["-InterfaceIndex", "-LocalIPAddress", "-RemoteIPAddress"]),
    "Select-Object": frozenset({"-First"}),
    "Where-Object": frozenset(),
    **{f"{verb}-NetIPsec{kind}": _FOUND for verb in ("Get", "Remove") for kind in _KINDS},
}


_NUMBERED = ("-Phase1AuthSet", "-PhaseOneAuthSet")
"""PowerShell takes digits in a parameter's name, and this grammar (0.26) does not."""


@dataclass(frozen=True)
class Command:
    """One command of a script: its name, and its parameters in pairs with what follows."""

    name: str
    parameters: tuple[tuple[str, str], ...]

    def value(self, parameter: str) -> str:
        (found,) = (value for name, value in self.parameters if name == parameter)
        return unquoted(found)


def unquoted(value: str) -> str:
    """Return a value, or a list of them, without what it is quoted by."""
    return value.replace("'", "").replace(" ", "")


def commands(script: str) -> list[Command]:
    """Return the commands of a script; raises ValueError where it is no PowerShell."""
    root = _PARSER.parse(script.replace(*_NUMBERED).encode()).root_node
    if root.has_error:
        raise ValueError(f"no PowerShell: {root}")
    return [_command(node) for node in _nodes(root, "command")]


def _nodes(node: Node, kind: str) -> Iterator[Node]:
    if node.type == kind:
        yield node
    for child in node.children:
        yield from _nodes(child, kind)


def _command(node: Node) -> Command:
    words = [_text(child) for part in node.named_children for child in _flat(part)]
    name, *rest = words
    pairs: list[tuple[str, str]] = []
    for word in rest:
        if word.startswith("-"):
            pairs.append((word, ""))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]}{word}")
    return Command(name, tuple(pairs))


def _flat(node: Node) -> list[Node]:
    return node.named_children if node.type == "command_elements" else [node]


def _text(node: Node) -> str:
    return node.text.decode().strip().replace(*_NUMBERED[::-1]) if node.text else ""


def faults(script: str) -> list[str]:
    """Return what in a script the vendor's reference does not know."""
    return [fault for command in commands(script) for fault in _faults(command)]


def _faults(command: Command) -> Iterator[str]:
    known = PARAMETERS.get(command.name)
    if known is None:
        yield command.name
        return
    for name, value in command.parameters:
        if name not in known:
            yield f"{command.name} {name}"
        elif name in VALUES and unquoted(value) not in VALUES[name]:
            yield f"{command.name} {name} {value}"
