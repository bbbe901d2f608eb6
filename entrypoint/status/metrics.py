"""The status as Prometheus metrics, one table; imported on the first scrape."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from entrypoint import __version__
from entrypoint.status.report import Status
from entrypoint.status.states import State


class Row(NamedTuple):
    """A metric without labels; `value` None leaves it out."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    value: Callable[[Status, float], float | None]


METRICS = (
    Row("ss_warp_healthy", "gauge", "1 if /healthz answers 200", lambda status, now: status.healthy),
    Row(
        "ss_warp_state_change_timestamp_seconds",
        "gauge",
        "Time of the last change of state",
        lambda status, now: status.since,
    ),
    Row(
        "ss_warp_handshake_timestamp_seconds",
        "gauge",
        "Time of the last WireGuard handshake",
        lambda status, now: status.handshake or None,
    ),
    Row(
        "ss_warp_answer_age_seconds",
        "gauge",
        "Seconds since the last answer through the tunnel",
        lambda status, now: now - status.answered if status.answered else None,
    ),
    Row(
        "ss_warp_round_trip_seconds",
        "gauge",
        "Round trip of the last probe",
        lambda status, now: status.round_trip or None,
    ),
    Row("ss_warp_listeners", "gauge", "Shadowsocks listeners up", lambda status, now: len(status.listening)),
    Row(
        "ss_warp_received_bytes",
        "counter",
        "Bytes received through the tunnel, restarts included",
        lambda status, now: status.rx_bytes,
    ),
    Row(
        "ss_warp_sent_bytes",
        "counter",
        "Bytes sent through the tunnel, restarts included",
        lambda status, now: status.tx_bytes,
    ),
    Row("ss_warp_repairs", "counter", "Repairs tried, restarts included", lambda status, now: status.repairs),
)


class _Snapshot(Collector):
    def __init__(self, status: Status, now: float) -> None:
        self._status, self._now = status, now

    def collect(self) -> Iterator[Metric]:
        status, now = self._status, self._now
        info = {
            "version": __version__,
            "implementation": status.implementation or "",
            "warp": status.warp,
            "colo": status.colo,
            "country": status.country,
            "account": status.account,
        }
        yield InfoMetricFamily("ss_warp", "Version, engine, exit and account", info)
        state = GaugeMetricFamily("ss_warp_state", "1 for the current state", labels=["state"])
        for one in State:
            state.add_metric([one.value], float(one is status.state))
        yield state
        families = GaugeMetricFamily(
            "ss_warp_family_answer_age_seconds", "Seconds since this family answered", labels=["family"]
        )
        for family, at in status.families.items():
            families.add_metric([f"ipv{family}"], now - at)
        yield families
        for row in METRICS:
            value = row.value(status, now)
            if value is not None:
                kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
                yield kind(row.name, row.help, value)


def exposition(status: Status, now: float) -> bytes:
    """Return the metrics at `now` (seconds since 1970) in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(status, now))
    return generate_latest(registry)
