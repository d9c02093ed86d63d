"""What PowerShell is told for one TunnelSpec: pure functions, nothing is run.

The NetSecurity cmdlets are what ipsecpol.exe and ipseccmd.exe have become. All is made in
the ActiveStore, which is gone with the next start of the machine: the PersistentStore
would keep the pre-shared key in clear text. IKEv1, since Windows has no pre-shared key in
IKEv2 (the reference of New-NetIPsecRule, KeyModule).
"""

from collections.abc import Iterable
from ipaddress import ip_network

from carnet.ipsec import ikev1_suites as ikev1
from carnet.ipsec.ikev1_suites import Suite, Words
from carnet.ipsec.spec import NAME_PREFIX, Mode, TunnelSpec
from carnet.objectives import Objective

DRIVER = "windows"
STORE = "-PolicyStore ActiveStore"
MOST_MINUTES = 2879
"""The longest lifetime of an SA that the cmdlets take."""
KEY_VARIABLE = "$psk"

_GROUPS = {"modp2048": "DH14", "ecp256": "DH19", "ecp384": "DH20"}
_CBC = {"3des": "DES3", "aes128": "AES128", "aes192": "AES192", "aes256": "AES256"}
_GCM = {f"aes{bits}gcm16": f"AESGCM{bits}" for bits in (128, 192, 256)}
_HASHES = {"md5": "MD5", "sha1": "SHA1", "sha256": "SHA256"}

IKE_WORDS = Words(_CBC, _HASHES | {"sha384": "SHA384"}, _GROUPS)
IPSEC_WORDS = Words(_CBC | _GCM, _HASHES, _GROUPS)

_KINDS = ("Rule", "MainModeRule", "QuickModeCryptoSet", "MainModeCryptoSet", "Phase1AuthSet")
"""In the order of their removal: what refers to others first."""


def beginning(spec: TunnelSpec) -> str:
    """Return the script that makes a tunnel; it reads the key from its standard input.

    Raises IPsecError if Windows cannot carry the tunnel.
    """
    ikev1.check(spec, DRIVER)
    if spec.lifetime > MOST_MINUTES * 60:
        raise ikev1.cannot_carry(DRIVER, f"a session of more than {MOST_MINUTES} minutes")
    lines = [
        "$ErrorActionPreference = 'Stop'",
        f"{KEY_VARIABLE} = [Console]::In.ReadLine()",
        *_address(spec),
        *_phase1(spec),
        *_main_mode(spec),
        *_quick_mode(spec),
        _rule(spec),
    ]
    return "".join(f"{line}\n" for line in lines)


def ending(name: str) -> str:
    """Return the script that removes a tunnel's rules and sets; what is not there is no error."""
    return "".join(f"{line}\n" for line in _removals(name))


def sweeping(keep: Iterable[str] = ()) -> str:
    """Return the script that removes whatever of ours is not to be kept."""
    kept = ", ".join(f"'{name}'" for name in keep)
    found = [
        f"Get-NetIPsec{kind} {STORE} -ErrorAction SilentlyContinue"
        f" | Where-Object {{ $_.DisplayName -like '{NAME_PREFIX}*'"
        f" -and $_.DisplayName -notin @({kept}) }} | Remove-NetIPsec{kind}"
        for kind in _KINDS
    ]
    return "".join(f"{line}\n" for line in found)


def address_removal(address: str) -> str:
    """Return the script that takes the virtual address away."""
    return f"Remove-NetIPAddress -IPAddress '{address}' {STORE} -Confirm:$false\n"


def _removals(name: str) -> list[str]:
    return [
        f"Remove-NetIPsec{kind} -DisplayName '{name}' {STORE} -ErrorAction SilentlyContinue"
        for kind in _KINDS
    ]


def _address(spec: TunnelSpec) -> list[str]:
    """Return how the virtual address is set: IKEv1 in Windows does not ask for one."""
    if spec.virtual_address is None:
        return []
    length = ip_network(spec.virtual_address).prefixlen
    return [
        (
            f"$way = Find-NetRoute -RemoteIPAddress '{spec.remote_addresses[0]}'"
            " | Select-Object -First 1"
        ),
        (
            f"New-NetIPAddress -IPAddress '{spec.virtual_address}' -PrefixLength {length}"
            f" -InterfaceIndex $way.InterfaceIndex -SkipAsSource $true {STORE}"
        ),
    ]


def _phase1(spec: TunnelSpec) -> list[str]:
    return [
        f"$auth = New-NetIPsecAuthProposal -Machine -PreSharedKey {KEY_VARIABLE}",
        f"$phase1 = New-NetIPsecPhase1AuthSet -DisplayName '{spec.name}' -Proposal $auth {STORE}",
    ]


def _main_mode(spec: TunnelSpec) -> list[str]:
    found = ikev1.chosen(spec.ike_proposals, IKE_WORDS, DRIVER, "IKE")
    # As long as the session: to renew it takes the key, which Target has forgotten.
    minutes = max(1, -(-spec.lifetime // 60))
    lines = [
        f"$main{number} = New-NetIPsecMainModeCryptoProposal -Encryption {suite.encryption}"
        f" -Hash {suite.integrity} -KeyExchange {suite.group}"
        for number, suite in enumerate(found)
    ]
    return [
        *lines,
        (
            f"$mainset = New-NetIPsecMainModeCryptoSet -DisplayName '{spec.name}'"
            f" -Proposal {_listed('main', found)} -MaxMinutes {minutes} {STORE}"
        ),
        (
            f"New-NetIPsecMainModeRule -DisplayName '{spec.name}'"
            f" -RemoteAddress '{spec.remote_addresses[0]}' -MainModeCryptoSet $mainset.Name"
            f" -Phase1AuthSet $phase1.Name {STORE}"
        ),
    ]


def _quick_mode(spec: TunnelSpec) -> list[str]:
    found = _quick_suites(spec)
    group = found[0][0].group or "None"
    lines = [
        f"$quick{number} = New-NetIPsecQuickModeCryptoProposal {_protected(esp, ah, spec)}"
        f" -MaxMinutes {ikev1.SA_LIFETIME // 60}"
        for number, (esp, ah) in enumerate(found)
    ]
    return [
        *lines,
        (
            f"$quickset = New-NetIPsecQuickModeCryptoSet -DisplayName '{spec.name}'"
            f" -Proposal {_listed('quick', found)} -PerfectForwardSecrecyGroup {group} {STORE}"
        ),
    ]


def _quick_suites(spec: TunnelSpec) -> list[tuple[Suite, Suite]]:
    """Return the pairs of an ESP and an AH suite, all of one group; where one is none, twice."""
    esp, ah = (
        ikev1.chosen(proposals, IPSEC_WORDS, DRIVER, protocol) if proposals else ()
        for proposals, protocol in ((spec.esp_proposals, "ESP"), (spec.ah_proposals, "AH"))
    )
    pairs = [(one, other) for one in esp or ah for other in ah or esp if one.group == other.group]
    if not (esp and ah):
        pairs = [(suite, suite) for suite in ikev1.of_one_group(tuple(esp or ah))]
    if not pairs:
        raise ikev1.cannot_carry(DRIVER, "AH and ESP of different groups")
    return [pair for pair in pairs if pair[0].group == pairs[0][0].group]


def _protected(esp: Suite, ah: Suite, spec: TunnelSpec) -> str:
    if spec.objective is Objective.AH:
        return f"-Encapsulation AH -AHHash {ah.integrity} -ESPHash None -Encryption None"
    # An AEAD has no other integrity than its own, which the cmdlet wants named as GMAC.
    integrity = esp.integrity or esp.encryption.replace("GCM", "GMAC")
    protected = f"-ESPHash {integrity} -Encryption {esp.encryption}"
    if spec.objective is Objective.AH_ESP:
        return f"-Encapsulation 'AH', 'ESP' -AHHash {ah.integrity} {protected}"
    return f"-Encapsulation ESP {protected}"


def _listed(variable: str, found: Iterable[object]) -> str:
    return ", ".join(f"${variable}{number}" for number, _ in enumerate(found))


def _rule(spec: TunnelSpec) -> str:
    target = spec.remote_addresses[0]
    where = f"-Mode Transport -RemoteAddress '{target}'"
    if spec.mode is Mode.TUNNEL:
        where = (
            f"-Mode Tunnel -LocalTunnelEndpoint Any -RemoteTunnelEndpoint '{target}'"
            f" -LocalAddress '{spec.virtual_address}' -RemoteAddress '{spec.remote_networks[0]}'"
        )
    return (
        f"New-NetIPsecRule -DisplayName '{spec.name}' {where} -KeyModule IKEv1"
        " -InboundSecurity Require -OutboundSecurity Require"
        f" -Phase1AuthSet $phase1.Name -QuickModeCryptoSet $quickset.Name {STORE}"
    )
