"""The status as Prometheus metrics; imported on the first scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from entrypoint import __version__
from entrypoint.status.board import Status
from entrypoint.status.states import State


class _Snapshot(Collector):
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        info = {
            "version": __version__,
            "implementation": status.implementation or "",
            "warp": status.warp,
            "colo": status.colo,
            "account": status.account,
        }
        yield InfoMetricFamily("ss_warp", "Version and ways in use", info)
        state = GaugeMetricFamily("ss_warp_state", "1 for the present state", labels=["state"])
        for one in State:
            state.add_metric([one.value], float(one is status.state))
        yield state
        yield GaugeMetricFamily("ss_warp_state_since_seconds", "Time of the last change", status.since)
        yield GaugeMetricFamily("ss_warp_handshake_seconds", "Time of the last handshake", status.handshake)
        yield GaugeMetricFamily(
            "ss_warp_listeners", "Shadowsocks listeners that are up", len(status.listening)
        )
        yield CounterMetricFamily("ss_warp_received_bytes", "By the tunnel", status.rx_bytes)
        yield CounterMetricFamily("ss_warp_sent_bytes", "By the tunnel", status.tx_bytes)
        yield CounterMetricFamily("ss_warp_repairs", "Rungs of the ladder climbed", status.repairs)


def exposition(status: Status) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(status))
    return generate_latest(registry)
