"""Tests of this folder run in a guest kernel: one boot for some files, each reported here.

Outside, an item's own protocol is replaced: the first of a boot (tests.guest.boots) boots a
guest that runs pytest on all that were selected of it, and each item then takes its reports
from there, as they come. Inside, the reports are written down. What has no report has failed.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lab.errors import LabError
from lab.guest import OUT, Guest
from lab.waiting import IN_GUEST, wait_until

SECONDS = 600.0
"""For one test and what comes before it, the boot included; by then it is done, or failed."""

SOAK = "CARNET_SOAK"
"""Set in the environment of `make soak`, inside too."""

ROOT = Path(__file__).parents[2]
_PLUGINS = ("-p", "pytest_timeout", "-p", "no:cacheprovider", "-p", "no:doctest")
_NO_OTHERS = "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1"
"""Inside, what is not needed is not even looked for: the guest takes long for that."""
_REPORTS = "reports"
_SELECTION = "selection"


def is_inside() -> bool:
    return IN_GUEST in os.environ


class Group:
    """The tests of some files, in one guest.

    What the guest would be slow at, a file's own prepare_outside() may do beforehand: it is
    given a directory that the guest has as prepared(), and one that all of a run have in
    common, if there is one. A file that says SYSTEMD has systemd as the guest's first process.
    """

    def __init__(self, items: list[pytest.Item]) -> None:
        selection = "\n".join(item.nodeid for item in items)
        soak = [f"{SOAK}=1"] if SOAK in os.environ else []
        order = ["env", _NO_OTHERS, *soak, sys.executable, "-m", "pytest", "-q", *_PLUGINS]
        modules = list(dict.fromkeys(item.module for item in items))
        shared = _shared(items[0].config)
        self._guest = Guest(
            [*order, f"@{OUT / _SELECTION}"],
            ROOT,
            {_SELECTION: selection},
            lambda directory: _prepare(directory, modules, shared),
            systemd=any(getattr(module, "SYSTEMD", False) for module in modules),
            place=int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
        )
        self._path = self._guest.directory / _REPORTS
        self._read = 0
        self._reports: dict[str, list[dict]] = {}

    def reports_of(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """Wait for an item's reports; one that says why, where there are none."""
        try:
            wait_until(lambda: self._is_over(item.nodeid), item.nodeid, SECONDS)
        except LabError as error:
            self.close()
            yield _failure(item, str(error))
            return
        found = self._reports.get(item.nodeid, [])
        for data in found:
            yield item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        if not _is_whole(found):
            yield _failure(item, f"The guest ended without a result. {self._guest.said()}")

    def _is_over(self, nodeid: str) -> bool:
        ended = not self._guest.running
        self._take_in()
        return ended or _is_whole(self._reports.get(nodeid, []))

    def _take_in(self) -> None:
        if not self._path.exists():
            return
        with self._path.open() as file:
            file.seek(self._read)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    return
                self._read = file.tell()
                data = json.loads(line)
                self._reports.setdefault(data["nodeid"], []).append(data)

    def close(self) -> None:
        self._guest.close()


def prepared(file: str) -> Path:
    """Inside: return the directory that a file's prepare_outside() was given."""
    return OUT / Path(file).stem


def _shared(config: pytest.Config) -> Path | None:
    """Return a directory that all workers of a run have in common; None where there are none."""
    if not hasattr(config, "workerinput"):
        return None
    return Path(config.getoption("basetemp")).parent / "guests"


def _prepare(directory: Path, modules: Iterable[ModuleType], shared: Path | None) -> None:
    for module in modules:
        prepare = getattr(module, "prepare_outside", None)
        if prepare is not None:
            place = directory / Path(str(module.__file__)).stem
            place.mkdir()
            prepare(place, shared)


def _is_whole(reports: list[dict]) -> bool:
    return any(report["when"] == "teardown" for report in reports)


def _failure(item: pytest.Item, why: str) -> pytest.TestReport:
    keywords = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(item.nodeid, item.location, keywords, "failed", why, "call")


def write_down(config: pytest.Config, report: pytest.TestReport) -> None:
    """Inside: leave a report where the outside finds it."""
    data = config.hook.pytest_report_to_serializable(config=config, report=report)
    with (OUT / _REPORTS).open("a") as file:
        file.write(json.dumps(data) + "\n")
