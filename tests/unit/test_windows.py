"""What PowerShell would be told, parsed with a grammar of PowerShell and held against the
vendor's reference; and the traveller's command where nothing of POSIX can be imported."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from carnet.errors import IPsecError
from carnet.ipsec.example import example_spec
from carnet.ipsec.spec import Mode
from carnet.ipsec.windows import Windows
from carnet.ipsec.windows_script import beginning, ending, sweeping
from carnet.objectives import Objective
from target_agent.proposals import IKEV1_PROFILES, Profile
from tests.unit.powershell import commands, faults
from token_client.config import PATH_VARIABLE

PROPOSED = IKEV1_PROFILES[Profile.MODERN]


def spec_of(objective=Objective.ESP, mode=Mode.TUNNEL, networks=(), **changes):
    return replace(example_spec(objective, mode, networks, ike_version=1, ppk=False), **changes)


def named(script, name):
    return [command for command in commands(script) if command.name == name]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("objective", [Objective.AH, Objective.ESP, Objective.AH_ESP])
@pytest.mark.parametrize("networks", [(), ("2001:db8:7::/48",)], ids=["IPv4", "IPv6"])
def test_every_script_is_powershell_that_the_vendor_knows(objective, mode, networks):
    spec = spec_of(objective, mode, networks)
    assert faults(Windows().render(spec)) == []
    made = [each for each in commands(beginning(spec)) if "-DisplayName" in dict(each.parameters)]
    assert {each.value("-PolicyStore") for each in made} == {"ActiveStore"}
    assert {each.value("-DisplayName") for each in made} == {spec.name}
    (rule,) = named(beginning(spec), "New-NetIPsecRule")
    assert rule.value("-InboundSecurity") == rule.value("-OutboundSecurity") == "Require"
    assert rule.value("-KeyModule") == "IKEv1"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-KeyModule IKEv1", "-KeyModule IKEv3"),
        ("-KeyModule", "-KeyModules"),
        ("ActiveStore", "PersistentStore"),
        ("New-NetIPsecRule", "New-NetIPsecRules"),
    ],
)
def test_what_the_vendor_does_not_know_is_found(old, new):
    script = beginning(spec_of())
    assert faults(script.replace(old, new))
    with pytest.raises(ValueError, match="no PowerShell"):
        commands(script.replace("[Console]", "[Console"))


def test_what_is_made_is_removed_and_rules_go_before_what_they_refer_to():
    made = {each.name.removeprefix("New-") for each in commands(beginning(spec_of()))}
    kept = {each for each in made if each.startswith("NetIPsec") and "Proposal" not in each}
    removed = [each.name.removeprefix("Remove-") for each in commands(ending("carnet-1"))]
    assert set(removed) == kept
    assert [each for each in removed if each.endswith("Rule")] == removed[:2]
    swept = [each.name for each in commands(sweeping()) if each.name.startswith("Remove-")]
    assert [each.removeprefix("Remove-") for each in swept] == removed
    assert "-notin @('carnet-1')" in sweeping(["carnet-1"])


def test_each_proposal_that_windows_can_do_is_made_in_the_order_of_target():
    script = beginning(spec_of(ike_proposals=PROPOSED.ike, esp_proposals=PROPOSED.esp))
    main = named(script, "New-NetIPsecMainModeCryptoProposal")
    suites = [[c.value(p) for p in ("-Encryption", "-Hash", "-KeyExchange")] for c in main]
    assert suites == [
        ["AES256", "SHA384", "DH20"],
        ["AES256", "SHA256", "DH19"],
        ["AES256", "SHA256", "DH14"],
    ]
    (quick,) = named(script, "New-NetIPsecQuickModeCryptoProposal")
    assert [quick.value(p) for p in ("-Encapsulation", "-ESPHash", "-Encryption")] == [
        "ESP",
        "AESGMAC256",
        "AESGCM256",
    ]
    (chosen,) = named(script, "New-NetIPsecQuickModeCryptoSet")
    assert chosen.value("-PerfectForwardSecrecyGroup") == "DH20"


def test_the_key_is_in_no_script():
    shown = Windows().render(spec_of(psk=b"k" * 32))
    assert "[Console]::In.ReadLine()" in shown
    assert "6b6b" not in shown
    assert "kkkk" not in shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ike_version": 2}, "IKEv2 with a pre-shared key"),
        ({"lifetime": 2880 * 60}, "more than 2879 minutes"),
        ({"ike_proposals": ("aes256-sha256-modp3072",)}, "any of the proposed IKE algorithms"),
        ({"esp_proposals": ("aes256-sha512-modp2048",)}, "any of the proposed ESP algorithms"),
        ({"esp_proposals": ("3des-md5",)}, "the weak algorithms 3des, md5"),
    ],
)
def test_what_windows_does_not_carry_is_refused(changes, said):
    with pytest.raises(IPsecError, match=said):
        beginning(spec_of(**changes))


DRY_RUN = "connect --dry-run --driver windows --network 10.20.0.0/16"


def test_the_command_needs_nothing_that_windows_lacks(tmp_path):
    argv = [sys.executable, "-m", "tests.unit.without_posix", DRY_RUN, "objectives", "status"]
    config = tmp_path / "client.toml"
    config.write_text("agent = false\n")
    environment = os.environ | {"HOME": str(tmp_path), PATH_VARIABLE: str(config)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    for each in (f"{DRY_RUN}: 0", "objectives: 0", "status: 5"):
        assert each in done.stdout.splitlines(), done.stderr
    assert "New-NetIPsecRule" in done.stdout
    assert "Table 3" in done.stdout
    assert done.stderr.count("\n") == done.stderr.count("does not answer") == 1
