"""What can be counted of a Target."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter

from carnet.exchange.target import State
from carnet.metrics import Gauges, Sample, histogram
from carnet.objectives import Objective

if TYPE_CHECKING:
    from target_agent.agent import Agent

STEPS = ("step4", "step5", "step6")
LASTING = (State.PREPARED, State.ESTABLISHED, State.ENDING)
"""States in which a live tunnel may stay: how many there are is shown also where there is none."""


class TargetMetrics:
    """The metrics of one Target; those of requests are counted as they happen."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        requests = Counter(
            "carnet_target_requests", "Requests of Hosts by outcome.", ("outcome",),
            registry=registry,
        )  # fmt: skip
        self.count_request: Callable[[str], None] = lambda outcome: requests.labels(outcome).inc()
        steps = histogram(
            registry, "carnet_target_step_seconds", "How long a step of a request took.", "step"
        )
        self.step_seconds = {step: steps.labels(step).observe for step in STEPS}
        errors = Counter(
            "carnet_target_ike_daemon_errors",
            "How often the IKE daemon went, or did not answer in time.",
            registry=registry,
        )
        self.count_daemon_error: Callable[[], None] = errors.inc
        gone = Counter(
            "carnet_target_gate_gone", "How often the gate was found gone, and made anew.",
            registry=registry,
        )  # fmt: skip
        self.count_gate_gone: Callable[[], None] = gone.inc
        refused = Counter(
            "carnet_target_database_errors", "Statements and connections that the database failed.",
            registry=registry,
        )  # fmt: skip
        self.count_database_error: Callable[[], None] = refused.inc
        failures = Counter(
            "carnet_target_background_failures",
            "How often work beside the requests failed unexpectedly, and was begun anew.",
            ("task",),
            registry=registry,
        )
        self.count_failure: Callable[[str], None] = lambda task: failures.labels(task).inc()
        self.expect_failures: Callable[[str], None] = lambda task: failures.labels(task).inc(0)
        """Show that none of that work failed yet."""

    def show_agent(self, agent: "Agent") -> None:
        """Show what is read only when somebody asks."""
        Gauges(
            self.registry, "carnet_target_tunnels", "Live tunnels.", ("objective", "state"),
            lambda: _tally(agent.live_tunnels()),
        )  # fmt: skip
        Gauges(
            self.registry, "carnet_target_queue_length", "How much waits, or is under way.",
            ("queue",), lambda: [(("requests",), agent.under_way), (("events",), agent.events)],
        )  # fmt: skip
        Gauges(
            self.registry, "carnet_target_virtual_addresses", "Addresses of the pools.",
            ("ip_version", "state"), lambda: _addresses(agent),
        )  # fmt: skip


def _addresses(agent: "Agent") -> Iterator[Sample]:
    for version, (taken, size) in agent.addresses.items():
        yield (str(version), "taken"), taken
        yield (str(version), "free"), size - taken


def _tally(tunnels: Iterable[tuple[str, ...]]) -> Iterator[Sample]:
    none = dict.fromkeys(product([each.label for each in Objective], LASTING), 0)
    yield from (none | Tally(tunnels)).items()
