"""The ten steps as the traveller sees them: none is shown that did not happen."""

import pytest

from tests.unit.test_sessions import a_session
from token_client.config import ClientConfig
from token_client.connect import Connected
from token_client.opened import show
from token_client.steps import OPENING, Steps

TIMING = "step2;dur=1.5, step3;dur=2, step4;dur=3, step5;dur=4, target;dur=20, step7;dur=5"


def shown(capsys) -> list[int]:
    return [int(line.split()[0]) for line in capsys.readouterr().out.splitlines()]


def test_a_step_of_several_parts_is_shown_with_the_last(capsys):
    steps = Steps()
    with steps.part(9):
        pass
    assert shown(capsys) == []
    with steps.step(9):
        pass
    assert shown(capsys) == [9]


@pytest.mark.parametrize("way", ["part", "step"])
def test_a_step_that_fails_is_not_shown(capsys, way):
    steps = Steps()
    with steps.part(9):
        pass
    with pytest.raises(OSError, match="IKE"), getattr(steps, way)(9):
        raise OSError("IKE")
    assert shown(capsys) == []


def test_what_an_answer_tells_is_shown_once_it_opened(capsys):
    steps = Steps()
    with steps.part(OPENING):
        steps.answered(TIMING, 0.1)
    assert shown(capsys) == []
    steps.opened(granted=True)
    assert shown(capsys) == [2, 3, 4, 5, 6, 7, 8]
    assert steps.milliseconds[6] == 13
    assert steps.milliseconds[8] >= 100 - 1.5 - 2 - 20 - 5


def test_a_refusal_shows_no_step_that_makes_a_tunnel(capsys):
    steps = Steps()
    with steps.part(OPENING):
        steps.answered("step2;dur=1, step3;dur=2, target;dur=20, step7;dur=5", 0.1)
    steps.opened(granted=False)
    said = capsys.readouterr().out
    assert [int(line.split()[0]) for line in said.splitlines()] == [2, 3, 4, 7, 8]
    assert "Target refused" in said
    assert steps.milliseconds[4] == 20


def test_a_refusal_by_host_says_nothing_of_target(capsys):
    steps = Steps()
    with steps.part(OPENING):
        steps.answered("step2;dur=1, step3;dur=2, step7;dur=5", 0.1)
    steps.opened(granted=False)
    assert shown(capsys) == [2, 3, 7, 8]


def test_an_answer_that_does_not_open_has_told_nothing(capsys):
    steps = Steps()
    steps.answered(TIMING, 0.1)
    with pytest.raises(ValueError, match="forged"), steps.part(OPENING):
        raise ValueError("forged")
    with steps.part(OPENING):
        steps.answered("", 0.1)
    steps.opened(granted=True)
    assert shown(capsys) == [8]


def test_a_timing_line_is_read_as_far_as_it_is_one(capsys):
    steps = Steps()
    with steps.part(OPENING):
        steps.answered("step2;dur=x, step9;dur=1, \x1b[2J, step3;dur=2", 0.1)
    steps.opened(granted=True)
    assert shown(capsys) == [3, 8]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_note_is_told_also_where_the_result_alone_is_shown(capsys, quiet):
    Steps(quiet=quiet).note("an older tunnel is left")
    said = capsys.readouterr()
    kept_clear, told = (said.out, said.err) if quiet else (said.err, said.out)
    assert (kept_clear, told.strip()) == ("", "an older tunnel is left")


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_to_be_seen_to_is_told_in_either_form(capsys, as_json):
    told = []
    connected = Connected(a_session(clock_behind=60, target_ahead=-90), 3, {})
    show(connected, ClientConfig(few_pairs=5), told.append, as_json=as_json)
    behind, ahead, few = told
    assert behind == "This machine's clock is 1m behind the Host's; set it."
    assert ahead.startswith("Target work's clock is 1m30s behind this machine's")
    assert few.startswith("Few key pairs are left")
    assert capsys.readouterr().out.startswith("{" if as_json else "Connected to work")
