"""What racoon and the kernel are told for one TunnelSpec: pure functions, nothing is run.

Three texts: racoon.conf(5), its file of pre-shared keys, and what setkey(8) reads. The
key is found by the peer's address, since IKEv1 main mode knows no name yet (RFC 2409
section 5.4).
"""

from dataclasses import dataclass
from ipaddress import ip_network

from carnet.ipsec import ikev1_suites as ikev1
from carnet.ipsec.ikev1_suites import Suite, Words
from carnet.ipsec.spec import Mode, TunnelSpec
from carnet.objectives import Objective

DRIVER = "racoon"
DIRECTORY = "/var/run/carnet"
"""Of memory, and of root alone: the file of keys is there for as long as a tunnel is made."""
MASK = "(hidden)"
DPD_DELAY = 30

_GROUPS = {
    "modp2048": "14",
    "modp3072": "15",
    "modp4096": "16",
    "modp6144": "17",
    "modp8192": "18",
}
_HASHES = ("md5", "sha1", "sha256", "sha384", "sha512")
_ENCRYPTION = {"3des": "3des"} | {f"aes{bits}": f"aes {bits}" for bits in (128, 192, 256)}

IKE_WORDS = Words(_ENCRYPTION, {each: each for each in _HASHES}, _GROUPS)
IPSEC_WORDS = Words(_ENCRYPTION, {each: f"hmac_{each}" for each in _HASHES}, _GROUPS)


@dataclass(frozen=True)
class Files:
    """The three texts."""

    racoon_conf: str
    psk_txt: str
    setkey: str


def files(spec: TunnelSpec, here: str, key: str) -> Files:
    """Return what a tunnel takes; `here` is this machine's address towards Target.

    `key` is the pre-shared key as psk.txt has it, or what stands in its place. Raises
    IPsecError if racoon cannot carry the tunnel.
    """
    ikev1.check(spec, DRIVER)
    target = spec.remote_addresses[0]
    sainfo = _sainfo(spec, here, target)
    conf = f'path pre_shared_key "{DIRECTORY}/psk.txt";\n\n{_remote(spec, target)}\n{sainfo}'
    return Files(conf, f"{target} {key}\n", _policies(spec, here, target))


def _remote(spec: TunnelSpec, target: str) -> str:
    found = ikev1.chosen(spec.ike_proposals, IKE_WORDS, DRIVER, "IKE")
    proposals = "".join(map(_proposal, found))
    return (
        f"remote {target} {{\n"
        "    exchange_mode main;\n"
        "    my_identifier address;\n"
        "    peers_identifier address;\n"
        "    verify_identifier on;\n"
        "    proposal_check strict;\n"
        f"    nat_traversal {'force' if spec.force_udp else 'on'};\n"
        f"    dpd_delay {DPD_DELAY};\n"
        # As long as the session: to renew it takes the key, which Target has forgotten.
        f"    lifetime time {spec.lifetime} sec;\n"
        f"{proposals}}}\n"
    )


def _proposal(suite: Suite) -> str:
    return (
        "    proposal {\n"
        f"        encryption_algorithm {suite.encryption};\n"
        f"        hash_algorithm {suite.integrity};\n"
        "        authentication_method pre_shared_key;\n"
        f"        dh_group {suite.group};\n"
        "    }\n"
    )


def _sainfo(spec: TunnelSpec, here: str, target: str) -> str:
    esp, ah = _ipsec_suites(spec)
    group = (esp or ah)[0].group
    pfs = f"    pfs_group {group};\n" if group else ""
    encryption = ", ".join(dict.fromkeys(suite.encryption for suite in esp)) or "null_enc"
    integrity = ", ".join(dict.fromkeys(suite.integrity for suite in esp + ah))
    source, destination = _selectors(spec, here, target)
    return (
        f"sainfo address {source} any address {destination} any {{\n"
        f"{pfs}"
        f"    lifetime time {ikev1.SA_LIFETIME} sec;\n"
        f"    encryption_algorithm {encryption};\n"
        f"    authentication_algorithm {integrity};\n"
        "    compression_algorithm deflate;\n"
        "}\n"
    )


def _ipsec_suites(spec: TunnelSpec) -> tuple[tuple[Suite, ...], tuple[Suite, ...]]:
    """Return the suites of ESP and of AH: one of each, since sainfo would mix several."""
    esp: tuple[Suite, ...] = ()
    ah: tuple[Suite, ...] = ()
    if spec.esp_proposals:
        esp = ikev1.chosen(spec.esp_proposals, IPSEC_WORDS, DRIVER, "ESP")[:1]
    if spec.ah_proposals:
        found = ikev1.chosen(spec.ah_proposals, IPSEC_WORDS, DRIVER, "AH")
        ah = tuple(each for each in found if not esp or each.group == esp[0].group)[:1]
    if spec.ah_proposals and not ah:
        raise ikev1.cannot_carry(DRIVER, "AH and ESP of different groups")
    return esp, ah


def _selectors(spec: TunnelSpec, here: str, target: str) -> tuple[str, str]:
    if spec.virtual_address is None:
        return here, target
    return str(ip_network(spec.virtual_address)), spec.remote_networks[0]


def _policies(spec: TunnelSpec, here: str, target: str) -> str:
    """Return the kernel's policies; AH and ESP are one bundle, the inner protocol first."""
    near, far = _selectors(spec, here, target)
    out = _requirements(spec, f"{here}-{target}")
    back = _requirements(spec, f"{target}-{here}")
    return (
        f"spdadd {near} {far} any -P out ipsec {out};\n"
        f"spdadd {far} {near} any -P in ipsec {back};\n"
    )


def removal(spec: TunnelSpec, here: str) -> str:
    """Return what setkey is told at the end: the policies go, and the SAs with the daemon."""
    near, far = _selectors(spec, here, spec.remote_addresses[0])
    return f"spddelete {near} {far} any -P out;\nspddelete {far} {near} any -P in;\n"


def _requirements(spec: TunnelSpec, ends: str) -> str:
    tunnel = spec.mode is Mode.TUNNEL
    if spec.objective is Objective.AH_ESP:
        # One more IP header is enough: AH is around the ESP packet that has it.
        esp = f"esp/tunnel/{ends}/require" if tunnel else "esp/transport//require"
        return f"{esp} ah/transport//require"
    protocol = "ah" if spec.objective is Objective.AH else "esp"
    return f"{protocol}/tunnel/{ends}/require" if tunnel else f"{protocol}/transport//require"
