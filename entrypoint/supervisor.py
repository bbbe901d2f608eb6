"""The straight path: the only place that knows the order."""

import logging
import signal
from contextlib import suppress
from dataclasses import replace

import anyio

from entrypoint import client_details, desired, ssserver
from entrypoint.account.lifecycle import settle_key
from entrypoint.account.store import exists
from entrypoint.account.upkeep import AccountUpkeep, Rechecks, RenewedError
from entrypoint.addresses import Endpoint
from entrypoint.desired import DesiredState
from entrypoint.discovery import choose_public_host, look_outside, resolve_again, resolve_endpoints
from entrypoint.early.preflight import STOP
from entrypoint.firewall.killswitch import KillSwitch, kill_switch
from entrypoint.health.diagnosis import Outside
from entrypoint.health.explainer import explain_trouble
from entrypoint.health.ladder import SwitchEngineError
from entrypoint.health.memory import ENDPOINTS_FILE, HealthMemory, order
from entrypoint.health.monitor import HealthMonitor
from entrypoint.health.observer import Hooks
from entrypoint.health.triggers import Trigger
from entrypoint.linux import state_dir
from entrypoint.linux.state_dir import ACCOUNT_FILE, NETWORK_FILE
from entrypoint.linux.this_machine import open_world
from entrypoint.log import banner, configure
from entrypoint.network_watch import NetworkWatch
from entrypoint.routing.lookup import require_unchanged_replies, watch_replies
from entrypoint.routing.ownership import claim, saver
from entrypoint.routing.plan import decode
from entrypoint.routing.reconcile import apply, list_all
from entrypoint.routing.uplinks import find_uplinks
from entrypoint.settings import Settings, describe
from entrypoint.status import server
from entrypoint.status.board import Board, Run
from entrypoint.status.webhook import post_changes
from entrypoint.unwind import UnwindStack
from entrypoint.wireguard.open import DEFAULT_PLACES, Engine, Places, check_available, open_device

RECONNECT = signal.SIGUSR1
"""Sent by `ss-warp reconnect`."""

COUNTER_INTERVAL = 5.0
"""Seconds between two reads of the peer's counters for the status."""

log = logging.getLogger("ss-warp")


# A stop fits into Docker's 10 s before SIGKILL: unregistering 3 s (account/upkeep.UNREGISTER_TIMEOUT), each
# undo at most 3 s (unwind.UNDO_DEADLINE; together a tenth of a second on an idle machine), and each child
# 1.5 s from SIGTERM to SIGKILL (linux/processes.GRACE): 7.5 s if one of each hangs, below 5 s otherwise.


async def keep_up(run: Run, places: Places = DEFAULT_PLACES) -> None:
    """Bring the tunnel up and keep it healthy until cancelled; start over with a new account or engine.

    Afterwards everything is as before, except that the kill switch stays closed in the own placement,
    and on a host after a failure. Raises Error for what only a person can fix.
    """
    memory, rechecks = HealthMemory.load(run.state_file(ENDPOINTS_FILE)), Rechecks()
    engine = Engine(desired.implementation(run.settings, memory.guise))
    again = True
    while again:
        again = False
        try:
            await bring_up(run, places, memory, engine, rechecks)
        except* RenewedError:
            again = True
        except* SwitchEngineError:
            engine.switch()
            again = True


async def bring_up(
    run: Run, places: Places, memory: HealthMemory, engine: Engine, rechecks: Rechecks
) -> None:
    """Bring the tunnel up and keep it healthy until cancelled; undo everything on the way out."""
    settings, world, board = run.settings, run.world, run.board
    on_host = desired.on_host(settings)
    record = run.state_file(NETWORK_FILE)
    first_start = not exists(settings.account.state_dir)
    async with UnwindStack() as stack:
        enter = stack.enter_async_context

        # 1. Look, change nothing: are we alone, able, and is there a way out?
        stack.enter_context(state_dir.lock(settings.account.state_dir))
        board.expect(shadowsocks=settings.shadowsocks.on, state_directory=settings.account.state_dir)
        recorded, snapshot = state_dir.read(record), await list_all(world.netlink)
        ids = desired.choose_ids(settings, decode(recorded), snapshot)
        uplinks = find_uplinks(snapshot, ids.links, host=on_host)
        if on_host:
            desired.require_uplink(snapshot, uplinks)
            desired.require_understood(settings, snapshot)
        listening = world.netlink.listening_ports()
        for sentence in desired.what_stays_cut_off(settings, snapshot, world.netlink.resolvers()):
            log.warning("%s", sentence)
        await check_available(engine.choice, world.netlink, places)

        # 2. Record what is ours, then close the firewall; on a host only ssserver's traffic is blocked.
        await enter(
            claim(
                ids,
                world.netlink,
                recorded,
                saver(record, must=on_host or first_start),
                mode=desired.route_mode(settings),
                nft=world.nft if on_host else None,
            )
        )
        closed = desired.closed_policy(settings, ids)
        after_failure = desired.policy_after_failure(settings, ids, uplinks, listening) if on_host else None
        firewall = await enter(
            kill_switch(world.nft, closed, after_failure=after_failure, on=settings.firewall.on)
        )

        # 3. Outside the tunnel, through holes in the firewall: the account, and where its endpoints are.
        upkeep = AccountUpkeep(run, firewall, uplinks, rechecks)
        stack.push_async_callback(upkeep.unregister_on_exit)
        stored = await upkeep.load_or_register()
        secrets = client_details.load_or_generate(settings)
        host = await choose_public_host(run, firewall, uplinks, detect=not secrets.shown)
        found = await resolve_endpoints(run, firewall, stored.account, uplinks)
        endpoints = order(memory.known, found, world.clock.wall())
        state = desired.DesiredState(settings, ids, stored.account, endpoints, listening, memory.guise)
        uplinks = state.look(snapshot)
        state.require_family(uplinks)

        # 4. The tunnel: the policy first, because userspace WireGuard greets its peer as soon as it
        #    is configured; then the device, then the rules and routes that lead into it.
        replies = await watch_replies(world, snapshot, uplinks) if on_host else None
        await firewall.set(state.policy(uplinks))
        device = await enter(open_device(engine.choice, state.device(), world, log, places))
        engine.running = device.implementation
        if device.implementation == "kernel":
            # The kernel has no place for reserved bytes: nftables writes them, from before wg0 is up.
            state = replace(state, engine=device.implementation)
            await firewall.set(state.policy(uplinks))
        await enter(apply(state.plan(uplinks), world.netlink))
        if replies:
            await require_unchanged_replies(world, replies)
        firewall.arm()
        watch = NetworkWatch(state, world, firewall, uplinks, run.triggers)
        watch.close_older()
        watch.say_occupied(uplinks)
        board.show_device(device.implementation, endpoints[0], state.guise)
        level = logging.INFO if first_start else logging.DEBUG
        log.log(level, "brought up %s (%s), routes and firewall", ids.device, device.implementation)

        # 5. Keep it healthy; serve once a request has been answered through it.
        outside = OutsideView(run, firewall, watch, state)
        monitor = HealthMonitor(
            device=device,
            config=state.device(),
            endpoints=endpoints,
            guises=desired.guises(settings, stored.account),
            probe=state.probe(uplinks),
            world=world,
            observer=board,
            hooks=Hooks(
                watch.reconcile,
                upkeep.doubt,
                outside.look,
                outside.resolve,
                upkeep.last_check,
                upkeep.checked,
            ),
            traffic=world.netlink.traffic,
            memory=memory,
            triggers=run.triggers,
            exit_on_fatal=settings.health.exit_on_fatal,
            can_switch=await engine.can_switch(world, places),
            other_key=stored.next_private_key,
        )
        async with anyio.create_task_group() as tasks:
            for task in (
                monitor.keep_device,
                watch.watch_network,
                watch.watch_firewall,
                upkeep.recheck_when_doubted,
            ):
                tasks.start_soon(task)
            tasks.start_soon(explain_trouble, monitor)
            tasks.start_soon(_show_counters, monitor, board)
            tasks.start_soon(post_changes, run, firewall, ids.device)
            await monitor.connect()
            stored = settle_key(run.state_file(ACCOUNT_FILE), stored, monitor.config.private_key)
            monitor.other_key = None
            tasks.start_soon(upkeep.recheck_licence, stored)
            tasks.start_soon(monitor.run)
            tasks.start_soon(_reconnect_regularly, run)
            if settings.shadowsocks.on:
                await tasks.start(ssserver.keep_running, run, state, secrets, watch)
                if not secrets.shown:
                    client_details.show(host, settings, secrets.credentials)


class OutsideView:
    """What the monitor looks for outside the tunnel during an outage."""

    def __init__(self, run: Run, firewall: KillSwitch, watch: NetworkWatch, state: DesiredState) -> None:
        self._run, self._firewall, self._watch, self._state = run, firewall, watch, state
        self._looks = 0

    async def look(self, endpoint: Endpoint) -> Outside:
        """Find out what is reached without the tunnel, and from the second look on, or first, the time."""
        self._looks += 1
        run, web = self._run, self._looks > 1 or not self._run.board.status.proven
        uplinks = self._watch.uplinks
        return await look_outside(run.settings, run.world, self._firewall.hole, uplinks, endpoint, web=web)

    async def resolve(self, answered: bool) -> tuple[tuple[Endpoint, ...], str]:
        """Resolve the endpoints' names again, and let packets to new addresses out.

        Return new addresses, and the names if no resolver knows them; `answered`: one did, a moment ago.
        """
        uplinks = self._watch.uplinks
        found, unresolved = await resolve_again(
            self._run, self._firewall, self._state.account, uplinks, answered=answered
        )
        fresh = tuple(one for one in found if one not in self._state.endpoints)
        if fresh:
            self._state = replace(self._state, endpoints=(*self._state.endpoints, *fresh))
            self._watch.adopt(self._state)
            await self._firewall.set(self._state.policy(uplinks))
        return fresh, unresolved


async def _show_counters(monitor: HealthMonitor, board: Board) -> None:
    """Keep endpoint and counters on the board current."""
    while True:
        board.show_device(monitor.device.implementation, monitor.config.endpoint, monitor.config.guise)
        with suppress(OSError):
            board.count(await monitor.device.stats())
        await monitor.clock.sleep(COUNTER_INTERVAL)


async def _reconnect_regularly(run: Run) -> None:
    """Take a new exit every HEALTH_RECONNECT_EVERY."""
    while (pause := run.settings.health.reconnect_every) is not None:
        await run.world.clock.sleep(pause)
        run.triggers.fire(Trigger.RECONNECT)


def serve(settings: Settings) -> int:
    """Run until a signal stops it; return 0. Raises what ended it, with everything undone."""
    configure(settings.logs.level, settings.logs.format)
    log = logging.getLogger("ss-warp")
    for line in banner():
        log.info(line)
    level = logging.DEBUG if exists(settings.account.state_dir) else logging.INFO
    for line in describe(settings):
        log.log(level, line)
    for line in settings.warnings:
        log.warning(line)
    world = open_world()
    board = Board(world.clock, interval=settings.health.interval)
    anyio.run(run_until_signal, Run(settings, world, board))
    return 0


async def run_until_signal(run: Run) -> None:
    """Run health server and tunnel; return after one of STOP, when everything is undone."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_obey_signals, tasks.cancel_scope, run)
        await tasks.start(server.serve, run.settings.health.server_address, run.board)
        await keep_up(run)
        tasks.cancel_scope.cancel()


async def _obey_signals(scope: anyio.CancelScope, run: Run) -> None:
    """Take a new exit on RECONNECT, end on STOP."""
    with anyio.open_signal_receiver(*STOP, RECONNECT) as signals:
        async for received in signals:
            if received == RECONNECT:
                run.triggers.fire(Trigger.RECONNECT)
                continue
            run.board.show_stop()
            scope.cancel()
