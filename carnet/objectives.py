"""Threats, security objectives and IPsec options: the paper's Tables 1 to 3."""

from enum import IntEnum, StrEnum


class SecurityObjective(StrEnum):
    """The security objectives of the paper's Table 2."""

    CRYPTO_COMM_CHANNEL = "O.Crypto_Comm_Channel"
    DATA_EXCHANGE_CONF = "O.Data_Exchange_Conf"
    COMM_TRUSTED_CHANNEL = "O.Comm_Trusted_Channel"
    INTEGRITY_ATTR_EXCH = "O.Integrity_Attr_Exch"
    NON_REPUDIATION = "O.Non-repudiation"


class Threat(StrEnum):
    """The threats of the paper's Table 1."""

    SPOOFING = "T.Spoofing"
    HACK_COMM_EAVESDROP = "T.Hack_Comm_Eavesdrop"


class Objective(IntEnum):
    """The IPsec options of the paper's Table 3; the value is the Objective-ID."""

    NATIVE = 1
    AH = 2
    ESP = 3
    AH_ESP = 4

    @property
    def label(self) -> str:
        """The name a person types: native, ah, esp or ah+esp."""
        return self.name.lower().replace("_", "+")


_O = SecurityObjective

TABLE_1: dict[Threat, frozenset[SecurityObjective]] = {
    Threat.SPOOFING: frozenset(
        {
            _O.CRYPTO_COMM_CHANNEL,
            _O.COMM_TRUSTED_CHANNEL,
            _O.INTEGRITY_ATTR_EXCH,
            _O.NON_REPUDIATION,
        }
    ),
    Threat.HACK_COMM_EAVESDROP: frozenset({_O.DATA_EXCHANGE_CONF}),
}

TABLE_2: dict[SecurityObjective, str] = {
    _O.CRYPTO_COMM_CHANNEL: (
        "A secure session establishment should be provided between the system and remote"
        " systems using encryption functions."
    ),
    _O.DATA_EXCHANGE_CONF: (
        "User data confidentiality should be protected when data are exchanged between systems."
    ),
    _O.COMM_TRUSTED_CHANNEL: (
        "Concerns the provision of a communications channel between the system and a remote"
        " trusted system for security-critical operations."
    ),
    _O.INTEGRITY_ATTR_EXCH: (
        "This is to ensure correct exchanging of attributes with another trusted product. It"
        " ensures that the system correctly exchanges security-attribute information with"
        " another trusted IT product."
    ),
    _O.NON_REPUDIATION: "It is to prevent users from avoiding accountability.",
}
"""In the paper's words."""

TABLE_3: dict[Objective, frozenset[SecurityObjective]] = {
    Objective.NATIVE: frozenset(),
    Objective.AH: frozenset({_O.INTEGRITY_ATTR_EXCH, _O.NON_REPUDIATION}),
    Objective.ESP: frozenset(
        {_O.COMM_TRUSTED_CHANNEL, _O.DATA_EXCHANGE_CONF, _O.CRYPTO_COMM_CHANNEL}
    ),
    Objective.AH_ESP: frozenset(_O),
}


def parse_objective(name: str) -> Objective:
    """Return the IPsec option of that name or Objective-ID.

    Raises ValueError if the paper's Table 3 has no such option.
    """
    for objective in Objective:
        if name.lower() in (objective.label, str(int(objective))):
            return objective
    choices = ", ".join(o.label for o in Objective)
    raise ValueError(f"There is no objective {name!r}; choose one of {choices}.")


def least_option(wanted: frozenset[SecurityObjective]) -> Objective:
    """Return the least IPsec option that satisfies all of the wanted objectives.

    Options are tried in the order of Table 3, which is the order of their cost.
    """
    return next(option for option in Objective if wanted <= TABLE_3[option])


def required_by(names: tuple[str, ...]) -> frozenset[SecurityObjective]:
    """Return all that these IPsec options and security objectives stand for.

    Raises ValueError for a name that is neither.
    """
    wanted: set[SecurityObjective] = set()
    for name in names:
        if name in set(SecurityObjective):
            wanted.add(SecurityObjective(name))
        else:
            wanted |= TABLE_3[parse_objective(name)]
    return frozenset(wanted)


def choose_option(
    names: tuple[str, ...], threats: tuple[str, ...], minimum: tuple[str, ...] = ()
) -> Objective:
    """Return the IPsec option for what a user names, and never less than her minimum.

    A name is an IPsec option, which is taken as it is, or a security objective of
    Table 2; a threat stands for its row of Table 1. Where she names nothing it is ESP,
    or more if her minimum is. Raises ValueError for names that are none, for two options
    at once, and for less than her minimum.
    """
    least = required_by(minimum)
    option = _chosen(names, threats) or least_option(TABLE_3[Objective.ESP] | least)
    if not least <= TABLE_3[option]:
        lacking = ", ".join(sorted(least - TABLE_3[option]))
        raise ValueError(
            f"{option.label} is less than the minimum of your configuration ({lacking} is"
            f" missing); choose {least_option(least | TABLE_3[option]).label}, or change it."
        )
    return option


def _chosen(names: tuple[str, ...], threats: tuple[str, ...]) -> Objective | None:
    wanted: set[SecurityObjective] = set()
    options: set[Objective] = set()
    for name in names:
        if name in set(SecurityObjective):
            wanted.add(SecurityObjective(name))
        else:
            options.add(parse_objective(name))
    for threat in threats:
        if threat not in set(Threat):
            raise ValueError(f"There is no threat {threat!r}; choose one of {', '.join(Threat)}.")
        wanted |= TABLE_1[Threat(threat)]
    if not options and not wanted:
        return None
    if len(options) > 1 or (options and not wanted <= TABLE_3[next(iter(options))]):
        raise ValueError("These objectives cannot be had together; name one IPsec option.")
    return next(iter(options)) if options else least_option(frozenset(wanted))
