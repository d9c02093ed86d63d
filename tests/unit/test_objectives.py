"""The paper's Tables 1 and 3."""

import pytest

from carnet.objectives import Objective, choose_option


@pytest.mark.parametrize(
    ("names", "threats", "option"),
    [
        ((), (), Objective.ESP),
        (("ah",), (), Objective.AH),
        (("AH+ESP",), (), Objective.AH_ESP),
        (("4",), (), Objective.AH_ESP),
        (("native",), (), Objective.NATIVE),
        (("O.Data_Exchange_Conf",), (), Objective.ESP),
        (("O.Non-repudiation",), (), Objective.AH),
        (("O.Non-repudiation", "O.Data_Exchange_Conf"), (), Objective.AH_ESP),
        ((), ("T.Hack_Comm_Eavesdrop",), Objective.ESP),
        ((), ("T.Spoofing",), Objective.AH_ESP),
        (("ah+esp",), ("T.Hack_Comm_Eavesdrop",), Objective.AH_ESP),
    ],
)
def test_the_least_option_that_satisfies_all_is_chosen(names, threats, option):
    assert choose_option(names, threats) is option


@pytest.mark.parametrize(
    ("minimum", "names", "option"),
    [
        ((), (), Objective.ESP),
        (("ah",), (), Objective.AH_ESP),
        (("O.Data_Exchange_Conf",), (), Objective.ESP),
        (("native",), ("native",), Objective.NATIVE),
        (("O.Non-repudiation",), ("ah",), Objective.AH),
        (("O.Non-repudiation",), ("native",), None),
        (("esp",), ("ah",), None),
        (("O.Non-repudiation",), ("O.Data_Exchange_Conf",), None),
    ],
)
def test_less_than_the_minimum_is_refused_and_never_chosen(minimum, names, option):
    if option is None:
        with pytest.raises(ValueError, match="less than the minimum"):
            choose_option(names, (), minimum)
    else:
        assert choose_option(names, (), minimum) is option


@pytest.mark.parametrize(
    ("names", "threats"),
    [
        (("esp", "ah"), ()),
        (("ah",), ("T.Hack_Comm_Eavesdrop",)),
        (("rot13",), ()),
        ((), ("T.Boredom",)),
    ],
)
def test_what_cannot_be_had_together_is_refused(names, threats):
    with pytest.raises(ValueError, match=r"choose one|cannot be had"):
        choose_option(names, threats)
