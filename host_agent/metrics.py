"""What can be counted of a Host; each process counts what it did itself.

What all processes share, as the pairs in the Key Database, each tells alike.
"""

import asyncio
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter
from sqlalchemy.exc import SQLAlchemyError

from carnet.database.readers import ask
from carnet.metrics import Gauges, histogram
from host_agent.hsm import Hsm
from host_agent.hsm_service import ERROR_KINDS
from host_agent.hsm_states import State
from host_agent.keydb import KeyDatabase

STEPS = ("step2", "step3", "target", "step7")
COUNT_SECONDS = 10.0
"""For how long the count of pairs is told again: it reads all of them."""
ANSWER_SECONDS = 3.0
"""For which a scrape waits for it: all else is shown while the database is silent."""


class HostMetrics:
    """The metrics of one process; those of requests are counted as they happen."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        requests = Counter(
            "carnet_host_requests",
            "Requests by outcome, those included that were taken up after a crash.",
            ("outcome",),
            registry=registry,
        )
        self.count_request: Callable[[str], None] = lambda outcome: requests.labels(outcome).inc()
        token_errors = Counter(
            "carnet_host_token_errors", "Failures of the HSM, by kind.", ("kind",),
            registry=registry,
        )  # fmt: skip
        self.count_token_error: Callable[[str], None] = lambda kind: token_errors.labels(kind).inc()
        for kind in ERROR_KINDS:
            token_errors.labels(kind)
        refused = Counter(
            "carnet_host_database_errors",
            "Statements and connections that the Key Database failed.",
            registry=registry,
        )
        self.count_database_error: Callable[[], None] = refused.inc
        failures = Counter(
            "carnet_host_background_failures",
            "How often work beside the requests failed unexpectedly, and was begun anew.",
            ("task",),
            registry=registry,
        )
        self.count_failure: Callable[[str], None] = lambda task: failures.labels(task).inc()
        self.expect_failures: Callable[[str], None] = lambda task: failures.labels(task).inc(0)
        """Show that none of that work failed yet."""
        steps = histogram(
            registry, "carnet_host_step_seconds", "How long a step of a request took.", "step"
        )
        self.step_seconds = {step: steps.labels(step).observe for step in STEPS}
        self.request_seconds = histogram(
            registry,
            "carnet_host_request_seconds",
            "From a request's arrival to its answer.",
        ).observe
        self._pairs: dict[str, int] = {}
        self._counted_at = float("-inf")
        self._counting: asyncio.Task[None] | None = None

    def show_host(self, database: KeyDatabase, hsm: Hsm, under_way: Callable[[], int]) -> None:
        """Show what is read only when somebody asks."""
        self._database = database
        Gauges(
            self.registry, "carnet_host_pairs_left", "Valid key pairs of each user.", ("user",),
            lambda: (((user,), pairs) for user, pairs in self._pairs.items()),
        )  # fmt: skip
        Gauges(
            self.registry, "carnet_host_hsm_in_service", "Whether the HSM serves (1) or not.", (),
            lambda: [((), hsm.state is State.IN_SERVICE)],
        )  # fmt: skip
        Gauges(
            self.registry, "carnet_host_queue_length", "How much waits, or is under way.",
            ("queue",), lambda: [(("requests",), under_way()), (("hsm",), hsm.waiting)],
        )  # fmt: skip

    async def refresh(self) -> None:
        """Count the pairs, unless that was done just now; off the way of every request.

        What is not known is not told. A database that is silent is asked again only after it
        has answered.
        """
        if self._counting is None:
            if time.monotonic() - self._counted_at < COUNT_SECONDS:
                return
            self._counted_at = time.monotonic()
            self._counting = asyncio.create_task(self._count())
        counting = self._counting
        await asyncio.wait({counting}, timeout=ANSWER_SECONDS)
        if not counting.done():
            self._pairs = {}
            return
        self._counting = None
        counting.result()

    async def _count(self) -> None:
        try:
            self._pairs = await ask(self._database.pairs_left)
        except SQLAlchemyError:
            self._pairs = {}
