"""What a benchmark makes of figures: ratios round by round, aims, and what became worse."""

import io
import json
import signal
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from itertools import count
from operator import attrgetter
from threading import Barrier

import msgspec
import pytest
import structlog
from click.testing import CliRunner

from bench import (
    abreast,
    accounted,
    closed,
    drawing,
    load,
    machine,
    page,
    paper,
    regression,
    report,
)
from bench.__main__ import TABLES, main
from bench.comparison import Aim, Row, Spread, in_turn
from bench.edge import likeliest
from bench.in_guest import GuestFailedError, InterruptedInGuestError
from bench.paper import Curve
from bench.paper_guest import PASSES
from bench.plan import Plan
from bench.regression import keep, regressions
from bench.rows import (
    connect,
    database,
    distance,
    ending,
    host,
    latency,
    many,
    memory,
    pieces,
    processes,
)
from bench.stored import kept

AT_MOST = Aim("at most 3 times", most=3)
HALF = Aim("at least half", least=0.5)


def row(ours, floor, aim=AT_MOST, name="a row"):
    return Row(
        group="a table", name=name, floor_name="a floor", unit="ms", aim=aim, ours=ours, floor=floor
    )


def test_sides_are_measured_in_turn_and_the_first_round_is_not_counted():
    order, figures = [], iter(range(100))

    def side(name):
        order.append(name)
        return next(figures)

    ours, floor = in_turn(lambda: side("ours"), lambda: side("floor"), 2)
    assert order == ["ours", "floor"] * 3
    assert (ours, floor) == ((2, 4), (3, 5))


def test_a_ratio_is_that_within_a_round():
    # A machine that is ten times slower in one round moves no ratio.
    assert row((2, 20, 2), (1, 10, 1)).ratio == Spread(2, 2, 2)


@pytest.mark.parametrize(
    ("aim", "ours", "met"),
    [
        (AT_MOST, 3, True),
        (AT_MOST, 3.1, False),
        (HALF, 0.5, True),
        (HALF, 0.4, False),
        (Aim("floor and 50 ms", above=50), 51, True),
        (Aim("floor and 50 ms", above=50), 52, False),
        (Aim("at most 100 ms", limit=100), 100, True),
        (Aim("at most 100 ms", limit=100), 101, False),
        (Aim("to be seen"), 1, None),
    ],
)
def test_an_aim_is_met_or_missed_by_the_medians(aim, ours, met):
    assert row((ours,) * 3, (1,) * 3, aim).is_met is met


def test_a_ratio_is_aimed_at_within_the_rounds():
    # A slow machine in other rounds of one side than of the other is no merit.
    ours, floor = (40, 60, 90), (110, 130, 190)
    assert HALF.is_met(90 / 130)
    assert row(ours, floor, HALF).is_met is False
    above = row((100, 200, 400), (90, 120, 300), Aim("floor and 50 ms", above=50))
    assert above.judged == Spread(80, 45, 90)
    assert row((100, 210, 410), (40, 130, 300), above.aim).is_met is False


def test_there_is_no_verdict_where_the_quartiles_are_on_both_sides_of_an_aim(tmp_path):
    chance = row((40, 60, 90), (100, 100, 100), HALF)
    assert chance.is_met is True
    straddling = row((30, 60, 90), (100, 100, 100), HALF)
    assert straddling.is_met is None
    report.write(tmp_path, [straddling], quick=False)
    assert "| at least half | within the spread |" in (tmp_path / "report.md").read_text()


def test_a_ratio_that_became_worse_is_found_in_the_direction_of_its_aim():
    before = [row((2, 2, 2), (1, 1, 1)), row((2, 2, 2), (1, 1, 1), HALF, "a rate")]
    slower = [row((4, 4, 4), (1, 1, 1)), row((4, 4, 4), (1, 1, 1), HALF, "a rate")]
    assert regressions(before, slower) == ["a table, a row: 4.00 of the floor, where it was 2.00."]
    assert regressions(slower, before) == ["a table, a rate: 2.00 of the floor, where it was 4.00."]


def test_a_rate_without_an_aim_is_worse_where_it_is_less():
    before, slower = (
        replace(row((each,) * 3, (1, 1, 1), Aim("to be seen")), unit="requests/s")
        for each in (4, 2)
    )
    assert regressions([slower], [before]) == []
    assert regressions([before], [slower]) == [
        "a table, a row: 2.00 of the floor, where it was 4.00."
    ]


def test_a_piece_that_is_nothing_of_the_whole_is_not_compared():
    before, slower = (row((each,) * 3, (1000,) * 3) for each in (1, 4))
    assert regressions([before], [slower]) == []


def test_a_small_rate_that_is_halved_is_found():
    before, slower = (row((each,) * 3, (1000,) * 3, HALF) for each in (10.3, 5.2))
    assert regressions([before], [slower]) == [
        "a table, a row: 0.00520 of the floor, where it was 0.0103."
    ]


def test_memory_and_round_trips_may_be_worse_by_less():
    before, more = (replace(row((each,) * 3, (1,) * 3), unit="MiB") for each in (1, 1.1))
    assert regressions([before], [more]) == [
        "a table, a row: 1.10 of the floor, where it was 1.00."
    ]
    assert regressions([replace(before, unit="ms")], [replace(more, unit="ms")]) == []


def test_an_aim_that_was_met_and_is_missed_is_told():
    before, now = (row((each,) * 3, (1,) * 3) for each in (2.9, 3.1))
    assert regressions([before], [now]) == [
        "a table, a row: at most 3 times was met, and is missed (3.10)."
    ]
    assert regressions([now], [now]) == []
    assert regressions([now], [before]) == []
    unsure = row((2.8, 2.9, 3.1, 3.2), (1,) * 4)
    assert regressions([before], [unsure]) == [
        "a table, a row: at most 3 times was met, and is within the spread (3.00)."
    ]
    assert regressions([unsure], [now]) == [
        "a table, a row: at most 3 times was within the spread, and is missed (3.10)."
    ]
    # Nothing was aimed at then, so nothing was lost.
    assert regressions([replace(before, aim=Aim("to be seen"))], [now]) == []


def test_what_is_aimed_at_by_itself_is_compared_whatever_the_floor_does():
    aim = Aim("at most 100 ms", limit=100)
    before, slower, floor_faster = (
        row((ours,) * 3, (floor,) * 3, aim) for ours, floor in ((50, 5), (99, 10), (50, 1))
    )
    assert regressions([before], [slower]) == ["a table, a row: 99.0 ms, where it was 50.0."]
    assert regressions([before], [floor_faster]) == []


def test_more_above_the_floor_is_told_by_the_difference_and_not_by_the_ratio_alone():
    aim = Aim("floor and 50 ms", above=50)
    before, more, little = (row((each,) * 3, (500,) * 3, aim) for each in (700, 780, 705))
    assert regressions([before], [more]) == [
        "a table, a row: 1.56 of the floor, where it was 1.40."
    ]
    assert regressions([before], [little]) == []


def test_beside_another_floor_nothing_is_compared():
    before, now = (row((each,) * 3, (1,) * 3) for each in (1, 9))
    assert regressions([replace(before, floor_name="another")], [now]) == []


def test_ratios_of_two_machines_are_not_compared(tmp_path, monkeypatch):
    before, slower = (row((each,) * 3, (1,) * 3) for each in (2, 4))
    elsewhere = replace(before, machine="another")
    assert regressions([elsewhere], [slower]) == []
    report.write(tmp_path, [elsewhere], quick=False)
    monkeypatch.setitem(TABLES, "host", lambda _: iter([slower]))
    done = CliRunner().invoke(main, ["--table", "host", "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert "nothing of this machine is stored to compare 1 of 1 rows with" in done.stderr


def test_a_machine_is_told_by_what_its_processors_and_kernel_are():
    told = "processor\t: 0\nmodel name\t: One\nflags\t\t: fpu amx_tile\n"
    assert machine._model(told) == " (One with AMX)"
    assert machine._model("processor: 0\n") == ""
    assert "kernel " in machine.machine()


def test_without_git_no_commit_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert machine.commit() == ""


def test_a_table_that_is_not_whole_leaves_the_rows_that_it_has_not(tmp_path):
    older = [row((2,), (1,), name=name) for name in ("one", "two")]
    report.write(tmp_path, older, quick=False)
    anew = row((3,), (1,), name="two")
    report.update(tmp_path, [anew], [], quick=False, whole=False)
    assert report.stored(tmp_path)[0] == [older[0], anew]
    report.update(tmp_path, [anew], [], quick=False)
    assert report.stored(tmp_path)[0] == [anew]


@pytest.mark.parametrize("text", ['{"quick": true, "ro', "{}"])
def test_what_is_no_report_is_one_sentence_before_anything_is_measured(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    done = CliRunner().invoke(main, ["--table", "commands", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "is no report" in done.stderr
    assert (tmp_path / "report.json").read_text() == text


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("report.json", "report"),
        ("baseline.json", "baseline"),
        ("before.json", "list of what was closed"),
    ],
)
@pytest.mark.parametrize("sides", [[(1,), (1, 2)], [(), ()], [(1,), (0,)], None])
def test_what_cannot_be_compared_is_one_sentence_before_anything_is_measured(
    tmp_path, here, name, what, sides
):
    wrong = msgspec.json.encode(row((2,), (1,)))
    if sides:
        facts = msgspec.json.decode(wrong) | dict(zip(("ours", "floor"), sides, strict=True))
        rows = {"report.json": {"rows": [facts], "curves": []}, "baseline.json": [facts]}
        wrong = msgspec.json.encode(rows.get(name, [{"by": "less", "row": facts}]))
    (tmp_path / name).write_bytes(wrong)
    here.append(row((2, 2, 2), (1, 1, 1)))
    done = ended(tmp_path)
    assert done.exit_code == 1
    assert f"{name} is no {what} (" in done.stderr
    assert "host took" not in done.stderr


def test_what_is_measured_first_on_a_machine_is_kept_to_compare_with(tmp_path, here):
    here.append(row((2, 2, 2), (1, 1, 1)))
    assert ended(tmp_path).exit_code == 0
    here[:] = [row((4, 4, 4), (1, 1, 1))]
    for _ in range(2):  # the report that the second finds is as bad as itself
        done = ended(tmp_path)
        assert done.exit_code == 1
        assert "a row: 4.00 of the floor, where it was 2.00" in done.stderr
    assert len(msgspec.json.decode((tmp_path / "baseline.json").read_bytes())) == 1


def test_what_a_run_has_left_that_was_cut_off_is_kept_to_compare_with_too(tmp_path, here):
    stored_here(tmp_path, row((2, 2, 2), (1, 1, 1)))
    here.append(row((4, 4, 4), (1, 1, 1)))
    assert [ended(tmp_path).exit_code for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("command", [regression.main, page.main])
def test_without_a_report_nothing_is_kept_or_put_into_the_page(tmp_path, monkeypatch, command):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "page")
    (tmp_path / "page").touch()
    done = CliRunner().invoke(command)
    assert done.exit_code == 1
    assert f"There is no report in {tmp_path} yet; make one by `make bench`." in done.stderr
    assert not (tmp_path / "baseline.json").exists()


def test_what_both_runs_spread_over_is_no_regression():
    before, now = (row(ours, (1, 1, 1), Aim("to be seen")) for ours in ((2, 4, 6), (4, 6, 8)))
    assert regressions([before], [now]) == []


def test_a_report_says_each_row_and_whether_it_is_met(tmp_path):
    rows = [row((2, 2, 2), (1, 1, 1)), row((9, 9, 9), (1, 1, 1), name="another")]
    report.write(tmp_path, rows, quick=True)
    text = (tmp_path / "report.md").read_text()
    assert "| a row | 2.00 (2.00 to 2.00) ms | 1.00 (1.00 to 1.00) ms | a floor |" in text
    assert text.count("| met |") == 1
    assert text.count("**missed**") == 1
    assert report.stored(tmp_path) == (rows, [])


def test_a_report_keeps_the_groups_that_were_not_measured_anew(tmp_path):
    first = row((2, 2, 2), (1, 1, 1))
    other = replace(row((3, 3, 3), (1, 1, 1)), group="another table")
    report.write(tmp_path, [first, other], quick=True)
    again = row((5, 5, 5), (1, 1, 1))
    report.update(tmp_path, [again], [], quick=True)
    assert report.stored(tmp_path) == ([again, other], [])


def test_a_table_that_fails_keeps_the_rows_before_and_is_named(tmp_path, monkeypatch):
    def failing(_):
        yield row((2, 2, 2), (1, 1, 1))
        raise OSError("no space left")

    monkeypatch.setitem(TABLES, "host", failing)
    done = CliRunner().invoke(main, ["--table", "host", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "bench: not measured whole: host" in done.stderr
    assert [each.name for each in report.stored(tmp_path)[0]] == ["a row"]
    structlog.get_logger().info("what comes after is logged again")


@pytest.mark.parametrize(("ours", "status"), [(2, 0), (4, 1)])
def test_a_run_ends_with_1_where_a_ratio_became_worse(tmp_path, here, ours, status):
    stored_here(tmp_path, row((2, 2, 2), (1, 1, 1)))
    here.append(row((ours,) * 3, (1, 1, 1)))
    done = ended(tmp_path)
    assert done.exit_code == status
    assert ("bench: worse than before: a table, a row" in done.stderr) is bool(status)
    # The next run is compared with this one.
    assert report.stored(tmp_path)[0][0].ours == (ours,) * 3


def ended(directory, *options):
    return CliRunner().invoke(main, ["--table", "host", "--out", str(directory), *options])


@pytest.fixture
def here(monkeypatch):
    """What is measured now, of the machine that old rows have."""
    found = []
    monkeypatch.setattr("bench.__main__.machine", lambda: "here")
    monkeypatch.setitem(TABLES, "host", lambda _: iter(found))
    return found


@pytest.mark.parametrize(("options", "left_out"), [([], set()), (["--quick"], {"latency"})])
def test_a_run_measures_each_table_once_and_a_quick_one_no_tail(
    tmp_path, monkeypatch, options, left_out
):
    measured = []

    def kept(name):
        measured.append(name)
        return iter(())

    for name in TABLES:
        monkeypatch.setitem(TABLES, name, lambda _, name=name: kept(name))
    monkeypatch.setattr(paper, "measure", lambda _: (kept("paper"), ()))
    done = CliRunner().invoke(main, ["--out", str(tmp_path), *options])
    assert done.exit_code == 0
    assert sorted(measured) == sorted({*TABLES, "paper"} - left_out)


def stored_here(directory, *rows):
    report.write(directory, [replace(x, machine="here", table="host") for x in rows], quick=False)


def test_what_is_kept_stays_what_later_runs_are_compared_with(tmp_path, here):
    stored_here(tmp_path, row((2, 2, 2), (1, 1, 1)))
    keep(tmp_path)
    here.append(row((4, 4, 4), (1, 1, 1)))
    # The second of two bad runs is no better than the first.
    assert [ended(tmp_path).exit_code for _ in range(2)] == [1, 1]
    keep(tmp_path)
    assert ended(tmp_path).exit_code == 0
    assert [each.ours for each in kept(tmp_path)] == [(4, 4, 4)]


def test_a_row_that_is_no_more_is_told(tmp_path, here):
    stored_here(tmp_path, row((2, 2, 2), (1, 1, 1)), row((2, 2, 2), (1, 1, 1), name="another"))
    here.append(row((2, 2, 2), (1, 1, 1)))
    done = ended(tmp_path)
    assert done.exit_code == 1
    assert "worse than before: a table, another: is no more." in done.stderr


def test_a_row_whose_floor_is_another_one_is_told(tmp_path, here):
    stored_here(tmp_path, row((2, 2, 2), (1, 1, 1)))
    here.append(replace(row((9, 9, 9), (1, 1, 1)), floor_name="another floor"))
    done = ended(tmp_path)
    assert done.exit_code == 1
    assert "worse than before: a table, a row: is no more beside a floor." in done.stderr


def test_a_group_that_a_whole_table_has_no_more_goes_from_the_report(tmp_path, here):
    old = replace(row((2, 2, 2), (1, 1, 1)), group="an old group", table="host")
    others = [replace(old, group=f"of {table}", table=table) for table in ("many", "")]
    report.write(tmp_path, [old, *others], quick=False)
    here.append(row((2, 2, 2), (1, 1, 1)))
    ended(tmp_path)
    assert [each.group for each in report.stored(tmp_path)[0]] == ["of many", "of ", "a table"]


def test_where_a_report_cannot_go_is_said_before_anything_is_measured(tmp_path, here):
    stored_here(tmp_path, row((2, 2, 2), (1, 1, 1)))
    done = ended(tmp_path, "--quick")
    assert "has the report of whole runs, and this one is quick" in done.stderr
    (tmp_path / "file").touch()
    done = ended(tmp_path / "file" / "place")
    assert "No report can be written into" in done.stderr


def test_an_interrupt_keeps_what_there_is_and_says_what_is_not_measured(tmp_path, monkeypatch):
    def interrupted(_):
        yield row((2, 2, 2), (1, 1, 1))
        raise KeyboardInterrupt

    monkeypatch.setitem(TABLES, "host", interrupted)
    done = ended(tmp_path, "--table", "database")
    assert done.exit_code == 130
    assert "not measured whole: host" in done.stderr
    assert "interrupted, and not measured: database" in done.stderr
    assert [each.name for each in report.stored(tmp_path)[0]] == ["a row"]


def test_being_ended_by_somebody_keeps_what_there_is_as_an_interrupt_does(tmp_path, monkeypatch):
    directories = []

    def ended_by_somebody(plan):
        directories.append(plan.place())
        yield row((2, 2, 2), (1, 1, 1))
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    monkeypatch.setitem(TABLES, "host", ended_by_somebody)
    try:
        done = ended(tmp_path)
        assert signal.getsignal(signal.SIGTERM).__name__ == "<lambda>"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.exit_code == 130
    assert [each.name for each in report.stored(tmp_path)[0]] == ["a row"]
    assert not any(each.exists() for each in directories)


def test_an_interrupt_stops_the_rounds_of_memory_that_go_on(tmp_path, monkeypatch):
    heard = []

    def one(plan, sizes, advance, stopped):
        if next(number) < both.parties and both.wait(60) == 0:
            raise KeyboardInterrupt
        heard.append(stopped.wait(60))

    number, both = count(), Barrier(2)
    monkeypatch.setattr(memory, "_AT_ONCE", 2)
    monkeypatch.setattr(memory, "_round", one)
    with pytest.raises(KeyboardInterrupt):
        list(memory.rows(Plan(tmp_path, quick=True)))
    assert heard
    assert all(heard)


def test_processor_time_is_told_by_what_a_thread_is_for():
    before = {"hsm": 10.0, "asyncio_0": 5.0, "Thread-1 (_run)": 1.0}
    after = {"hsm": 14.0, "asyncio_0": 9.0, "asyncio_1": 2.0, "Thread-1 (_run)": 3.0}
    after["reading_0"] = 2.0
    assert list(host.parts(before, after, 2).values()) == [4.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("count", "cores", "token", "idle", "least"),
    [
        (4, 2, 500, 0.5, 1.8),
        (2, 8, 150, 0.9, 1.35),
        (2, 8, 400, 0.9, 1.8),
        (2, 2, 528, 0.5, 1.8),
        (2, 2, 528, 0.32, 1.32),
    ],
)
def test_processes_scale_with_cores_until_the_token_limits(
    monkeypatch, count, cores, token, idle, least
):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    # A token that does not scale limits nobody as long as it carries more than the Hosts do.
    assert processes.aim_beside(token, 100, count, idle).least == least


def test_a_process_beside_others_is_warm_before_it_is_ready(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    monkeypatch.setattr(abreast, "WARM_UP", 2)
    abreast.take_part(print, ["first", "second", "third", "fourth"])
    assert capsys.readouterr().out.split() == [
        *("first", "second", "ready", "third", "fourth", "done")
    ]


def test_what_is_due_follows_the_rate_of_its_time():
    # The first 24 took 0.1 s each, the others 0.05.
    ends = [*(0.1 * number for number in range(1, 25)), *(2.4 + 0.05 * x for x in range(1, 13))]
    due = load.Load(3, (1.0,) * 36, tuple(ends)).paced(0.5)
    assert due[:2] == pytest.approx([0, 0.2])
    assert due[23:26] == pytest.approx([4.6, 4.8, 4.9])
    assert (len(due), due[-1]) == (36, pytest.approx(5.9))


def offered(rate, latency):
    return load.Offered(load.Load(100 / rate, (latency,) * 100), 50, 15)


@pytest.mark.parametrize(
    ("rate", "latency", "kept_up"), [(48, 29, True), (47, 29, False), (48, 31, False)]
)
def test_a_host_keeps_up_where_it_answers_as_fast_and_nobody_queues(rate, latency, kept_up):
    assert offered(rate, latency).kept_up is kept_up


def test_a_round_that_a_host_did_not_keep_up_in_is_measured_again_but_not_for_ever():
    late, well = offered(40, 90), offered(50, 15)
    assert load.until_kept_up(iter([late, well, well]).__next__) == [late, well]
    assert load.until_kept_up(iter([late] * 9).__next__) == [late] * 3


def test_what_a_host_did_not_keep_up_in_is_told_with_its_figures():
    well, late = offered(50, 15), offered(40, 90)
    found = latency.row([[late, late, well], [well]], hosts=1, measured=100)
    assert found.ours == (15, 15)
    assert "kept up in 2 of 2, and 2 times one was measured again that did not" in found.note
    assert "p99 of all 200 requests is 15 ms, 1.0 times their p50; with" in found.note
    assert found.note.endswith(
        "with those that were thrown away p99 of all 400 requests is 90 ms, 1.7 times their p50"
    )


def test_one_client_alone_is_measured_before_and_after_the_load(tmp_path, monkeypatch):
    sent = []

    @contextmanager
    def new_host(plan, measured, left=0):
        sent.append(("new", measured + left))
        yield (0, None), list(range(measured))

    def closed_loop(ports, bodies, clients):
        sent.append((clients, len(bodies)))
        # Half as long once the load has been.
        each = 10.0 if ("load", 5) in sent else 20.0
        return load.Load(1, (each,) * len(bodies), tuple(range(1, len(bodies) + 1)))

    def open_loop(port, bodies, due):
        sent.append(("load", len(bodies)))
        return load.Load(1, (25.0,) * len(bodies))

    monkeypatch.setattr(latency, "new_host", new_host)
    monkeypatch.setattr(latency, "closed_loop", closed_loop)
    monkeypatch.setattr(latency, "open_loop", open_loop)
    assert latency._offered(Plan(tmp_path, quick=True), 5).alone == 15
    # The load begins and ends with as many pairs as that which its rate is taken from.
    first = [("new", 5 + 16), (8, 5)]
    assert sent == [*first, ("new", 16 + 5 + 16), (1, 16), ("load", 5), (1, 16)]


def test_a_percentile_of_all_rounds_is_of_all_their_requests():
    loads = [load.Load(1, (1.0,) * 95 + (each,) * 5) for each in (10, 20, 30)]
    of_all = load.pooled(loads)
    assert (len(of_all.latencies), of_all.percentile(99), of_all.median) == (300, 30, 1)
    assert host.p99_of_all(loads) == "p99 of all 300 requests is 30 ms, 30.0 times their p50"


@pytest.mark.parametrize(("suite", "fits"), [("ESP-MD5-3DES", 1438), ("ESP-AES256-GCM", 1438)])
def test_the_largest_datagram_in_one_packet_is_the_mtu_less_what_the_suite_adds(suite, fits):
    spread = Spread(1, 1, 1)
    curve = Curve(suite, (fits, fits + 1), (spread, spread), (spread, spread))
    assert curve.fits == fits


SIZES = (1340, 1380, 1400, 1420, 1430, 1438, 1439, 1446, 1460, 1480, 1600)


def rates_of(costs):
    rates = [8 * size / cost for size, cost in zip(SIZES, costs, strict=True)]
    return tuple(Spread(each, each, each) for each in rates)


def curve_of(costs, native=()):
    """A curve of datagrams that cost so many microseconds each."""
    return Curve("ESP-AES256-GCM", SIZES, rates_of(costs), rates_of(costs), native)


def costs_with(step):
    return [100 + size / 100 + (size > 1438) * step + size % 3 / 10 for size in SIZES]


def test_the_peak_is_where_the_cost_of_a_datagram_steps_up():
    curve = curve_of(costs_with(5))
    assert curve.peak == curve.fits == 1438
    assert "The peak is there: after 1438 bytes" in report.peak(curve)


class Axes:
    """Keeps what is drawn, for whatever it is asked to do else."""

    def __init__(self):
        self.lines = {}

    def plot(self, sizes, values, *_, label, **__):
        self.lines[label] = (sizes, values)
        return (self,)

    def __getattr__(self, name):
        return lambda *_, **__: None


def test_both_sides_of_every_size_are_drawn_the_fine_steps_around_the_edge_included():
    sent, received = (Spread(80, 64, 100),) * 4, (Spread(60, 50, 70),) * 4
    curve = Curve("ESP-AES256-GCM", (1000, 1438, 1600, 2000), sent, received, native=sent[:2])
    axes = Axes()
    drawing._both_sides(axes, curve.sizes, curve)
    assert axes.lines["sender"] == (list(curve.sizes), [80] * 4)
    assert axes.lines["receiver"] == (list(curve.sizes), [60] * 4)
    drawing._both_sides(axes, [1438, 1600], curve)
    assert axes.lines["receiver"] == ([1438, 1600], [60] * 2)
    # Of an older report there is no more than this.
    assert drawing._at(curve.sizes, curve.native)[0] == [1000, 1438]
    assert drawing._cost(1000, sent[0]) == Spread(100, 80, 125)


def test_a_step_that_native_has_too_is_no_peak():
    curve = curve_of(costs_with(5), native=rates_of(costs_with(4)))
    assert curve.peak is None
    assert "No peak stands out of the noise there: it is a step of" in report.peak(curve)
    assert curve_of(costs_with(5), native=rates_of(costs_with(0))).peak == 1438


def test_a_step_is_the_peak_too_where_the_size_beside_it_is_as_likely():
    costs = costs_with(40)
    costs[SIZES.index(1438)] += 30
    costs[0] += 60
    curve = curve_of(costs)
    assert likeliest(curve.steps).after == 1430
    assert curve.peak == 1438
    assert f"steps up by {curve.edge.rise:.1f} microseconds" in report.peak(curve)


def test_one_size_that_lies_apart_moves_no_peak():
    costs = costs_with(5)
    costs[SIZES.index(1430)] += 60
    assert curve_of(costs).peak == 1438


def test_no_peak_is_told_where_none_stands_out():
    costs = costs_with(0)
    costs[SIZES.index(1446)] += 20
    curve = curve_of(costs)
    assert curve.peak is None
    assert "No peak stands out of the noise there" in report.peak(curve)


def test_a_step_where_nothing_begins_is_no_peak():
    curve = curve_of(
        [cost + (size > 1400) * 9 for cost, size in zip(costs_with(0), SIZES, strict=True)]
    )
    assert curve.peak is None
    assert "after 1400 bytes, where nothing begins" in report.peak(curve)


def test_a_curve_of_few_sizes_has_no_peak():
    spread = (Spread(1, 1, 1),) * 2
    assert "Too few sizes" in report.peak(Curve("ESP-AES256-GCM", (1438, 1439), spread, spread))


def lines_of(rounds, suite="ESP-AES256-GCM"):
    """What the guests of the paper say in so many rounds; native is three times faster."""
    table = {"nanoseconds_per_byte": 3.0, "cpu_share": 60.0, "paced_megabits": 40.0}
    for number in range(rounds):
        for side, factor in ((suite, 1), ("Native", 3)):
            common = {"suite": suite, "side": side, "round": number}
            yield {"what": "table", **common, **table, "megabits": factor * 100.0}
            for size, fragments in PASSES * ((1439, 2), (1438, 0)):
                sent = {"sent_megabits": factor * 60.0, "received_megabits": 40.0}
                yield {"what": "figure", **common, "size": size, **sent, "fragments": fragments}


def test_a_guest_that_fails_costs_none_of_the_rows_that_are_whole(tmp_path, monkeypatch):
    def measured(plan, what, errand, steps):
        if what == "Figure 4":
            return []
        # The fifth round of one suite is not there.
        lines = [*lines_of(5), *lines_of(4, "ESP-MD5-3DES")]
        raise GuestFailedError("it went away", lines)

    monkeypatch.setattr(paper, "measured", measured)
    found, (curve,) = paper.measure(Plan(tmp_path, quick=False))
    rows = []
    with pytest.raises(GuestFailedError, match="it went away"):
        rows.extend(found)
    of_sizes = [f"{size} bytes, {done}" for done in ("sent", "received") for size in (1438, 1439)]
    too_large = ": a datagram just too large for one packet of this suite, sent"
    names = ["ESP-AES256-GCM"] * 3 + of_sizes + [f"ESP-AES256-GCM{too_large}", f"Native{too_large}"]
    assert [row.name for row in rows] == names
    assert rows[2].note == "at 40 Mbit/s asked for, of which 40.0 came, and 40.0 natively"
    assert len(rows[3].ours) == 5 * PASSES
    assert rows[3].ratio == Spread(1 / 3, 1 / 3, 1 / 3)
    assert rows[5].ratio == Spread(1, 1, 1)
    assert rows[-1].ratio.median == pytest.approx(1439 / 1438)
    assert (curve.suite, curve.sizes, curve.of_native[0].median) == (
        ("ESP-AES256-GCM", (1438, 1439), 1 / 3)
    )
    assert curve.fragments == (0, 2)
    assert "no fragments (FragCreates) up to 1438 bytes, and 2.0 a datagram at 1439." in (
        report.peak(curve)
    )


@pytest.mark.parametrize("error", [InterruptedInGuestError([]), KeyboardInterrupt()])
def test_an_interrupt_of_the_second_guest_costs_none_of_the_first_ones_rows(monkeypatch, error):
    def measured(plan, what, errand, steps):
        if what == "Figure 4":
            raise error
        return list(lines_of(5))

    monkeypatch.setattr(paper, "measured", measured)
    done = CliRunner().invoke(main, ["--table", "paper", "--print"])
    assert done.exit_code == 130
    assert "not measured whole: paper" in done.stderr
    groups = [each["group"] for each in json.loads(done.stdout)["rows"]]
    assert groups[:3] == [f"{paper.GROUP}: {unit}" for unit in paper.UNITS.values()]


def test_a_share_says_nothing_where_the_pace_was_not_kept(tmp_path, monkeypatch):
    lines = [each | {"paced_megabits": 17.0} for each in lines_of(5)]
    monkeypatch.setattr(
        paper, "measured", lambda plan, what, *_: lines if what == "Table 5" else []
    )
    rows, _ = paper.measure(Plan(tmp_path, quick=False))
    (share,) = (each for each in rows if "processor" in each.unit)
    assert share.note.endswith(
        "of which 17.0 came, and 17.0 natively: not kept, so the share says nothing"
    )


def test_the_page_shows_what_the_report_has():
    text = page.PAGE.read_text()
    results = report.RESULTS
    before, between = closed.kept(results), kept(results)
    assert page.filled(text, *report.stored(results), before, between) == text, (
        "run `make measured`"
    )


def test_a_group_that_the_page_has_no_place_for_is_found():
    with pytest.raises(ValueError, match="no place for a table"):
        page.filled("", [row((1, 1, 1), (1, 1, 1))], [])


def test_the_page_has_a_place_for_every_table_there_is():
    groups = (
        *("Commands", "Minting", connect.GROUP, pieces.GROUP, distance.GROUP),
        *(host.GROUP, latency.GROUP, database.GROUP, ending.GROUP, many.GROUP),
        *(memory.GROUP, *(f"{paper.GROUP}: {unit}" for unit in paper.UNITS.values())),
        *(f"{paper.FIGURE}: {suite}" for suite in paper.BY_SIZE),
    )
    rows = [replace(row((1, 1, 1), (1, 1, 1)), group=group) for group in groups]
    assert page.filled(page.PAGE.read_text(), rows, []).count("| a row |") == len(groups)


def test_each_moment_counts_for_the_innermost_piece():
    moments = iter([0.0, 0.001, 0.003, 0.006, 0.010, 0.015])
    clock = accounted.Clock(lambda: next(moments))
    assert clock.run("outer", lambda: clock.run("inner", lambda: "done")) == "done"
    clock.count()
    taken = {piece: round(milliseconds) for piece, milliseconds in clock.taken.items()}
    assert taken == {accounted.BETWEEN: 1 + 5, "outer": 2 + 4, "inner": 3}


def test_a_context_counts_without_what_is_done_in_it():
    clock = accounted.Clock(iter(range(0, 100, 1)).__next__)

    @contextmanager
    def opened():
        yield "opened"

    with clock.run("opening", opened) as what:
        clock.run("inside", lambda: None)
    assert what == "opened"
    # Each look at this clock is a second later than the one before: made, entered, left.
    assert clock.taken == {accounted.BETWEEN: 4000, "opening": 3000, "inside": 1000}


@pytest.mark.parametrize("module", accounted.places())
def test_a_piece_is_of_functions_that_there_are(module):
    for dotted, _ in accounted.places()[module]:
        assert callable(attrgetter(dotted)(import_module(module)))


def test_what_strongswan_has_none_of_are_pieces_that_there_are():
    named = {name for names in pieces.STRONGSWAN_HAS_NONE.values() for name in names}
    counted = {name for name in named if name.startswith(("step 9:", "step 10:"))}
    assert counted
    assert counted <= accounted.PIECES.keys()


def test_pieces_are_shown_with_their_share_and_what_they_add_up_to():
    accounts = [{accounted.SENDING: 1.0, "long": 3.0, "none": 0.0, pieces.WHOLE: 4.0}] * 3
    found = list(pieces.rows(accounts, (2.0, 2.0, 2.0)))
    assert [row.name for row in found] == ["long", accounted.SENDING, pieces.WHOLE]
    assert [row.ratio.median for row in found] == [0.75, 0.25, 2.0]
    assert "add up to 4 ms" in found[-1].note
    assert "Host and Target 1," in found[-1].note


def test_what_was_closed_stands_beside_what_it_is_now(tmp_path):
    before = replace(row((4, 4, 4), (1, 1, 1)), measured="2026-11-28T10:00:00Z")
    after = replace(row((2, 2, 2), (1, 1, 1)), measured="2026-11-29T10:00:00Z")
    done = [closed.Closed("less of it", before)]
    assert "| a row | less of it | 4 ms | 4.00 | 2 ms | 2.00 |" in closed.table(done, [after])
    assert "not measured since" in closed.table(done, [before])
    (tmp_path / closed.NAME).write_bytes(msgspec.json.encode(done))
    report.write(tmp_path, [after], quick=False)
    assert closed.table(done, [after]) in (tmp_path / "report.md").read_text()


def test_what_a_later_lever_brought_is_not_credited_to_an_earlier_one():
    rows = [
        replace(row((each,) * 3, (1,) * 3), measured=f"2026-11-2{each}T10:00:00Z", commit=commit)
        for each, commit in ((7, "c"), (6, "b"), (5, "a"), (4, "a"))
    ]
    newest, second, *_, first = rows
    text = closed.table([closed.Closed("one", first), closed.Closed("two", second)], [newest])
    assert "| a row | one | 4 ms | 4.00 | 6 ms | 6.00 |" in text
    assert "| a row | two | 6 ms | 6.00 | 7 ms | 7.00 |" in text
    # What was put into the baseline meanwhile was measured next too.
    text = closed.table([closed.Closed("one", first)], [newest], between=[second])
    assert "| a row | one | 4 ms | 4.00 | 6 ms | 6.00 |" in text
    # What was measured again of the same commit came after nothing.
    assert "not measured since" in closed.table([closed.Closed("one", first)], [rows[2]])


def rows_from_afar(tmp_path, monkeypatch, trips=(2, 3), work=0):
    """Have 10 and 170 ms of work in the two steps, `work` more, and so many round trips."""

    def measured(*_):
        yield {"what": "packets", "tcp": 1, "ike": 4, "ike_of_target": 0}
        for rtt in (0, 20, 100, 300):
            ours = [spent + work + trip * rtt for spent, trip in zip((10, 170), trips, strict=True)]
            for _ in range(5):
                steps = dict(zip(("8", "9"), ours, strict=True))
                yield {"what": "connect", "rtt": rtt, **steps, "idle": 5 * rtt}
                yield {"what": "floor", "rtt": rtt, "8": 5 + 2 * rtt, "9": 150 + 2 * rtt}

    monkeypatch.setattr(distance, "measured", lambda *_: list(measured()))
    return {each.name: each for each in distance.rows(Plan(tmp_path, quick=False))}


def test_from_afar_the_floor_is_as_far_away_and_has_a_round_trip_for_the_rekeying(
    tmp_path, monkeypatch
):
    rows = rows_from_afar(tmp_path, monkeypatch)
    for rtt in (0, 20, 100):
        one = rows[f"step 9, IKE, {rtt} ms away"]
        assert one.ours[0] - one.floor[0] == 20
    assert one.floor_name == "ike alone, as far away, and 100 ms for the rekeying"
    assert one.note == "of the whole command the guest's one processor was idle for 500 ms"
    trips = rows["step 9, IKE: round trips waited for, by what 200 ms more add"]
    assert trips.ours == trips.floor == (3,) * 5
    assert all(each.is_met is not False for each in rows.values())


@pytest.mark.parametrize(("changed", "missed"), [({"trips": (3, 4)}, 4), ({"work": 500}, 2)])
def test_from_afar_a_round_trip_more_is_found_and_so_is_more_work(
    tmp_path, monkeypatch, changed, missed
):
    rows = rows_from_afar(tmp_path, monkeypatch, **changed)
    assert [each.is_met for each in rows.values()].count(False) == missed


def test_memory_is_compared_round_by_round_and_what_it_grows_is_told():
    sizes = memory.Sizes(few=100, fresh=500, all=2_500)
    flat = [(done, 100.0) for done in range(600, 2_501, 100)]
    rounds = [
        [*((done, 100.0 - (500 - done) / 1024) for done in range(100, 501, 100)), *flat],
        [*((done, 100.0) for done in range(100, 501, 100)), *flat],
        [*((done, 100.0 - (500 - done) / 1024) for done in range(100, 501, 100)), *flat],
    ]
    whole, repeats, each, fresh = memory.compared(rounds, [0.5, 0.5, 0.5], sizes)
    assert whole.name == "after 520 fresh requests and 1,980 repeats"
    assert whole.ours == (100.0, 100.0, 100.0)
    assert whole.floor == pytest.approx((100 - 400 / 1024, 100, 100 - 400 / 1024))
    assert repeats.ratio == Spread(1, 1, 1)
    assert "by 0.0 KiB in 1,000 requests in the first half of them, and by 0.0" in repeats.note
    assert each.ours == pytest.approx((1, 0, 1))
    assert "by 1000.0 KiB in 1,000 requests in the first half of them, and by 1000.0" in each.note
    # All fresh: 2,400 more of 1 KiB, of which the token keeps the half; one round has none.
    early = 100 - 400 / 1024
    own = (early + 1200 / 1024, 100 - 1200 / 1024, early + 1200 / 1024)
    assert fresh.ours == pytest.approx(own)
    assert fresh.floor == whole.floor
    assert "with what the token keeps it is 102 MiB, 1.02 times" in fresh.note
