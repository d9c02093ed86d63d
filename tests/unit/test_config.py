"""Configuration files: what is wrong is said with its line."""

from pathlib import Path

import pytest
from msgspec.inspect import Metadata, StrType, type_info

from carnet.config import Section, _parts, load_config
from carnet.errors import UsageError
from helper_agent.config import HelperConfig
from host_agent.config import HostConfig
from target_agent.config import TargetConfig
from token_client.config import ClientConfig


class Inner(Section, frozen=True, kw_only=True):
    size: int = 1


class Outer(Section, frozen=True, kw_only=True):
    name: str
    inner: Inner = Inner()
    many: dict[str, Inner] | None = None
    list: tuple[str, ...] = ()
    place: Path | None = None


def load(tmp_path, text):
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return load_config(path, Outer)


def test_a_file_is_read_as_written(tmp_path):
    loaded = load(tmp_path, 'name = "office"\n[inner]\nsize = 3\n[many.work]\nsize = 4\n')
    assert loaded == Outer(name="office", inner=Inner(size=3), many={"work": Inner(size=4)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = "x"\nnmae = 1\n', "line 2: unknown key `nmae`"),
        ('name = "x"\n\n[inner]\n# size = 1\nsize = "big"\n', "line 5: expected `int`"),
        ('name = "x"\n[inner]\nsize = 1\nextra = 2\n', "line 4: unknown key `extra`"),
        ('name = "x"\n[unheard]\nsize = 1\n', "line 2: unknown key `unheard`"),
        ('name = "x"\n[inner]\nsize = 1\n[unheard]\nsize = 1\n', "line 4: unknown key `unheard`"),
        ('name = "x"\n[many.work]\nsize = 1\nextra = 2\n', "line 4: unknown key `extra`"),
        ('name = "x"\n[many.work]\nsize = "big"\n', "line 3: expected `int`"),
        ("size = 1\n", "line 1: unknown key `size`"),
        ('name = "x"\ninner.extra = 2\n', "line 2: unknown key `extra`"),
        ('name = "x"\ninner = {size = 1, extra = 2}\n', "line 2: unknown key `extra`"),
        ('name = "x"\n[many]\nwork = {extra = 2}\n', "line 3: unknown key `extra`"),
        ('name = "x"\n[many]\na = {size = 1}\nb = "x"\n', "line 4: expected a table, got `str`"),
        ('name = "x"\n[many."work.example"]\nextra = 2\n', "line 3: unknown key `extra`"),
        ('name = "x"\ndeep.deeper.key = 1\n', "line 2: unknown key `deep`"),
        ('name = "x"\n[deep.deeper]\nkey = 1\n', "line 2: unknown key `deep`"),
        ('name = "x"\nlist = [\n  "a",\n  3,\n]\n', "line 4: expected `str`"),
        ('name = "x"\nplace = "a\\u0000b"\n', "line 2: expected a path"),
        ('name = "x"\nplace = 3\n', "line 2: expected `str`, got `int`"),
        ('name = "x"\nlist = ' + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("", "missing required field `name`"),
        ("name = \n", "); correct it and try again."),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, expected):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert expected in caught.value.sentence


def test_a_file_that_is_not_there_is_said_plainly(tmp_path):
    with pytest.raises(UsageError, match="Cannot read"):
        load_config(tmp_path / "none.toml", Outer)


@pytest.mark.parametrize(
    ("init", "advice"), [(None, "path."), ("carnet-x init", "`carnet-x init`.")]
)
def test_only_a_file_that_a_command_writes_is_said_to_be_written_by_it(tmp_path, init, advice):
    with pytest.raises(UsageError) as caught:
        load_config(tmp_path / "none.toml", Outer, init=init)
    assert caught.value.sentence.endswith(advice)
    assert ("init" in caught.value.sentence) == (init is not None)


def test_a_string_of_another_form_is_told_which_form_is_meant(tmp_path):
    path = tmp_path / "client.toml"
    path.write_text('force_udp = true\nhosts = ["ftp://x"]\n')
    with pytest.raises(UsageError, match="line 2: expected http://… or https://…"):
        load_config(path, ClientConfig)


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (ClientConfig, 'token = ""\n'),
        (ClientConfig, 'module = " "\n'),
        (ClientConfig, 'vici = ""\n'),
        (ClientConfig, 'minimum = ["esp", ""]\n'),
        (HostConfig, '[token]\ntoken = ""\n'),
        (HostConfig, '[token]\nmodule = ""\n'),
        (HostConfig, 'database = ""\n'),
        (TargetConfig, '[strongswan]\nsocket = ""\n'),
        (HelperConfig, 'vici = ""\n'),
    ],
)
def test_an_empty_string_is_said_with_its_line(tmp_path, type_, text):
    path = tmp_path / "agent.toml"
    path.write_text(f"\n{text}")
    with pytest.raises(UsageError) as caught:
        load_config(path, type_)
    line = 1 + text.count("\n")
    said = f"{path}, line {line}: expected text, not an empty string; correct it and try again."
    assert caught.value.sentence == said


def test_a_minimum_that_is_none_is_said_with_its_line(tmp_path):
    path = tmp_path / "client.toml"
    path.write_text('nat = true\nminimum = [\n  "O.Data_Exchange_Conf",\n  "espp",\n]\n')
    with pytest.raises(UsageError) as caught:
        load_config(path, ClientConfig)
    said = "line 4: there is no objective 'espp'; choose one of native, ah, esp, ah+esp; correct"
    assert said in caught.value.sentence


@pytest.mark.parametrize("key", ["networks", "targets"])
@pytest.mark.parametrize("bad", ['"10.0.0.1/8"', '"work"', "8"])
def test_a_network_of_the_helper_that_is_none_is_said_with_its_line(tmp_path, key, bad):
    path = tmp_path / "helper.toml"
    path.write_text(f'group = "carnet"\n{key} = [\n  "10.0.0.0/8",\n  {bad},\n]\n')
    with pytest.raises(UsageError) as caught:
        load_config(path, HelperConfig)
    assert f"{path}, line 4: " in caught.value.sentence


@pytest.mark.parametrize("type_", [ClientConfig, HelperConfig, HostConfig, TargetConfig])
def test_every_form_that_a_string_must_have_is_described(type_):
    kinds = list(_parts(type_info(type_)))
    forms = {kind.pattern for kind in kinds if isinstance(kind, StrType) and kind.pattern}
    described = {
        kind.type.pattern: kind.extra_json_schema["description"]
        for kind in kinds
        if isinstance(kind, Metadata) and isinstance(kind.type, StrType)
    }
    assert described.keys() == forms


def test_what_is_of_any_length_is_not_repeated_whole(tmp_path):
    path = tmp_path / "client.toml"
    path.write_text(f'on_removal = "{"a" * 5000}"\n')
    with pytest.raises(UsageError, match="line 1: invalid enum value 'aaa") as caught:
        load_config(path, ClientConfig)
    assert len(caught.value.sentence) < 500 + len(str(path))


TARGET = """name = "work"
listen = "::"
port = 1
directory = "."
link = {certificate = "a", key = "b", authority = "c"}
[tunnels]
addresses = ["198.51.100.2"]
dns = []
networks = ["10.20.0.0/16", "fd00::/8"]
virtual_addresses = "10.99.0.0/24"
virtual_addresses_v6 = "fc00::/64"
"""


def load_target(tmp_path, text):
    path = tmp_path / "target.toml"
    path.write_text(text)
    return load_config(path, TargetConfig)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ('["198.51.100.2"]', '["198.51.100.02"]', "line 7: "),
        ("dns = []", 'dns = ["198.51.100.02"]', "line 8: "),
        ("10.20.0.0/16", "10.20.0.1/16", "line 9: "),
        ("10.99.0.0/24", "10.99.0.1/24", "line 10: "),
        ("10.99.0.0/24", "0.0.0.0/0", "line 10: 0.0.0.0/0 holds addresses that others have"),
        ("10.99.0.0/24", "10.20.0.0/16", "line 10: 10.20.0.0/16 holds addresses"),
        ("fc00::/64", "fc00::/7", "line 11: fc00::/7 holds addresses"),
        ("fc00::/64", "10.98.0.0/24", "line 11: virtual_addresses_v6 must be of IPv6"),
        ('virtual_addresses_v6 = "fc00::/64"', "", "line 9: networks of an IP version need"),
        ("10.99.0.0/24", "198.51.100.0/24", "line 10: 198.51.100.0/24 holds addresses that others"),
        ("10.99.0.0/24", "127.1.0.0/24", "line 10: 127.1.0.0/24 holds addresses that no machine"),
        ("fc00::/64", "fe80::/64", "line 11: fe80::/64 holds addresses that no machine"),
        ("198.51.100.2", "::", "'::' is no machine's address"),
        ('listen = "::"', 'listen = "gateway"', "line 2: 'gateway' does not appear to be"),
        ("198.51.100.2", "ff02::1", "'ff02::1' is no machine's address"),
        ("dns = []", "allow_ikev1 = true", "line 8: IKEv1 has no post-quantum"),
    ],
)
def test_what_a_whole_table_shows_to_be_wrong_is_said_with_the_keys_line(
    tmp_path, right, wrong, said
):
    assert right in TARGET
    with pytest.raises(UsageError) as caught:
        load_target(tmp_path, TARGET.replace(right, wrong))
    assert said in caught.value.sentence


def test_a_pool_may_be_a_part_of_what_is_behind_a_target(tmp_path):
    whole = load_target(tmp_path, TARGET.replace("10.20.0.0/16", "0.0.0.0/0"))
    assert whole.tunnels.pools == ("10.99.0.0/24", "fc00::/64")


HOST = """name = "office"
listen = "::"
port = 1
officer = "officer.crt"
link = {certificate = "a", key = "b", authority = "c"}
targets.work.url = "https://[2001:db8::1]:8471"
"""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('database = "' + "a" * 300 + '"\n' + HOST, "line 1: expected a path, got one that"),
        (HOST.replace('"::"', '"localhost"'), "not looked up: write the address itself, 127.0.0.1"),
        (HOST.replace(":8471", ":99999"), "line 6: expected https://… with a host's name"),
        (HOST.replace("]:8471", ""), "line 6: expected https://… with a host's name"),
    ],
    ids=["too long a name", "a name for an address", "no port", "half a bracket"],
)
def test_what_no_host_can_use_is_said_with_its_line(tmp_path, wrong, said):
    path = tmp_path / "host.toml"
    path.write_text(HOST)
    load_config(path, HostConfig)
    path.write_text(wrong)
    with pytest.raises(UsageError) as caught:
        load_config(path, HostConfig)
    assert said in caught.value.sentence
