"""What the metrics of Host and Target have in common.

Labels are words of ours, never of a stranger's; only who has key pairs at a Host is a
label too, and the officer says who that is.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of the histograms: a token answers within milliseconds, a silent Target in seconds."""

Sample = tuple[tuple[str, ...], float]
"""Label values, and the value."""


class Gauges(Collector):
    """A gauge that is read when somebody asks, and costs nothing until then."""

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        help_: str,
        labels: tuple[str, ...],
        read: Callable[[], Iterable[Sample]],
    ) -> None:
        self._name, self._help, self._labels, self._read = name, help_, labels, read
        registry.register(self)

    def describe(self) -> list[GaugeMetricFamily]:
        """Say what there will be, without reading it."""
        return [self._family()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read it."""
        family = self._family()
        for labels, value in self._read():
            family.add_metric(labels, value)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._help, labels=self._labels)


def histogram(registry: CollectorRegistry, name: str, help_: str, *labels: str) -> Histogram:
    """Return a histogram of seconds."""
    return Histogram(name, help_, labels, registry=registry, buckets=SECONDS)
