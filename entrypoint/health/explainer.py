"""Find out why a tunnel is silent or degraded, and say it with growing pauses while that lasts."""

import logging
from contextlib import suppress
from itertools import chain, repeat
from typing import Final

from entrypoint.health.diagnosis import Evidence, diagnose
from entrypoint.health.ladder import Rung
from entrypoint.health.monitor import HealthMonitor
from entrypoint.health.verdict import is_usable

EXPLAIN_PAUSES: Final = (10.0, 50.0, 240.0, 1500.0, 5400.0, 21600.0)
"""Seconds until the cause is looked for again; the last one repeats. A short outage needs no explanation."""

log = logging.getLogger("ss-warp")


async def explain_trouble(monitor: HealthMonitor) -> None:
    """Look for the cause of each outage until cancelled. The look outside also resolves endpoints again."""
    while True:
        await monitor.trouble.wait()
        for pause in chain(EXPLAIN_PAUSES, repeat(EXPLAIN_PAUSES[-1])):
            await monitor.clock.sleep(pause * monitor.memory.random.uniform(1, 1.2))
            if not monitor.trouble.is_set():
                break
            await _explain(monitor)


async def _explain(monitor: HealthMonitor) -> None:
    silent = not is_usable(monitor.verdict)
    if silent:
        monitor.outside = await monitor.hooks.look_outside(monitor.config.endpoint)
        fresh = [one for one in await monitor.hooks.resolve() if one not in monitor.endpoints]
        monitor.endpoints = (*fresh, *monitor.endpoints)
    handshake = 0.0
    with suppress(OSError):
        handshake = (await monitor.device.stats()).handshake
    if silent is is_usable(monitor.verdict):
        return  # it changed meanwhile
    outage = monitor.outage
    tried = [climb.rung for climb in monitor.memory.climbs if outage and climb.at >= outage.since]
    evidence = Evidence(
        outside=monitor.outside,
        handshake=bool(outage) and handshake > monitor.outage_wall,
        ports_tried=min(len(monitor.endpoints), 1 + tried.count(Rung.NEXT_ENDPOINT)),
        ports=len(monitor.endpoints),
        reserved=any(monitor.config.reserved),
        answers=not silent,
        certificate=monitor.traced.why if monitor.traced.certificate else "",
        account=monitor.hooks.account_trouble(),
        offset=monitor.traced.offset,
    )
    monitor.set_cause(diagnose(evidence, strict_clock=monitor.probe.strict_clock))
    if monitor.cause:
        log.warning("%s: %s", monitor.name, monitor.cause)
    elif outage and (age := monitor.clock.monotonic() - outage.since) > 60:
        log.warning("%s has not answered for %.0f min: %d repairs tried", monitor.name, age / 60, len(tried))
