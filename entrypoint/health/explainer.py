"""Find out why a tunnel is silent or degraded, and say it with growing pauses while that lasts."""

import logging
from contextlib import suppress
from itertools import chain, repeat

import anyio

from entrypoint.health.diagnosis import Evidence, Outside, diagnose
from entrypoint.health.ladder import Rung
from entrypoint.health.monitor import HealthMonitor
from entrypoint.health.verdict import is_usable

EXPLAIN_PAUSES = (10.0, 50.0, 240.0, 1500.0, 5400.0, 21600.0)
"""Seconds until the cause is looked for again; the last one repeats. A short outage needs no explanation."""

log = logging.getLogger("ss-warp")


async def explain_trouble(monitor: HealthMonitor) -> None:
    """Look for the cause of each outage until cancelled. The look outside also resolves endpoints again."""
    while True:
        await monitor.trouble.wait()
        for pause in chain(EXPLAIN_PAUSES, repeat(EXPLAIN_PAUSES[-1])):
            due = monitor.clock.monotonic() + pause * monitor.memory.random.uniform(1, 1.2)
            while monitor.trouble.is_set() and (rest := due - monitor.clock.monotonic()) > 0:
                await _wait(monitor, rest)
                if monitor.trouble.is_set():
                    await _explain(monitor, again=monitor.clock.monotonic() >= due)
            if not monitor.trouble.is_set():
                break


async def _wait(monitor: HealthMonitor, seconds: float) -> None:
    """Wait, or until the API has answered about the account: that may be the cause."""
    async with anyio.create_task_group() as tasks:

        async def checked() -> None:
            await monitor.hooks.account_checked()
            tasks.cancel_scope.cancel()

        tasks.start_soon(checked)
        await monitor.clock.sleep(seconds)
        tasks.cancel_scope.cancel()


async def _explain(monitor: HealthMonitor, *, again: bool) -> None:
    """Find the cause and show it; log it if it is new, or `again`."""
    silent, outside, unresolved = not is_usable(monitor.verdict), Outside(), ""
    if silent:
        outside = monitor.outside = await monitor.hooks.look_outside(monitor.config.endpoint)
        found, unresolved = await monitor.hooks.resolve(bool(outside.udp))
        fresh = [one for one in found if one not in monitor.endpoints]
        monitor.endpoints = (*fresh, *monitor.endpoints)
    handshake = 0.0
    with suppress(OSError):
        handshake = (await monitor.device.stats()).handshake
    if silent is is_usable(monitor.verdict):
        return  # it changed meanwhile
    outage = monitor.outage
    tried = [climb.rung for climb in monitor.memory.climbs if outage and climb.at >= outage.since]
    checked = monitor.hooks.account()
    evidence = Evidence(
        outside=outside,
        handshake=bool(outage) and handshake > monitor.outage_wall,
        ports_tried=min(len(monitor.endpoints), 1 + tried.count(Rung.NEXT_ENDPOINT)),
        ports=len(monitor.endpoints),
        reserved=any(monitor.config.guise.reserved),
        proven=bool(monitor.memory.answered),
        answers=not silent,
        certificate=monitor.traced.why if monitor.traced.certificate else "",
        misdated=monitor.traced.misdated,
        account=checked if checked.at > monitor.memory.answered else None,
        unresolved=unresolved,
        offset=monitor.traced.offset if outside.offset is None else outside.offset,
    )
    before = monitor.cause
    monitor.set_cause(diagnose(evidence, strict_clock=monitor.probe.strict_clock))
    if monitor.cause:
        if again or monitor.cause != before:
            log.warning("%s: %s", monitor.name, monitor.cause)
    elif again and outage and (age := monitor.clock.monotonic() - outage.since) > 60:
        log.warning("%s has not answered for %.0f min: %d repairs tried", monitor.name, age / 60, len(tried))
