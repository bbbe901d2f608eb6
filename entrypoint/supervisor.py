"""The straight path: the only place that knows the order."""

import logging
from contextlib import suppress
from dataclasses import replace

import anyio

from entrypoint import client_details, desired, ssserver
from entrypoint.account.lifecycle import settle_key
from entrypoint.account.store import exists
from entrypoint.account.upkeep import AccountUpkeep, Rechecks, RenewedError
from entrypoint.discovery import choose_public_host, resolve_endpoints
from entrypoint.early.preflight import STOP
from entrypoint.firewall.killswitch import kill_switch
from entrypoint.health.monitor import HealthMonitor
from entrypoint.linux import state_dir
from entrypoint.linux.state_dir import ACCOUNT_FILE, NETWORK_FILE
from entrypoint.linux.this_machine import open_world
from entrypoint.log import banner, configure
from entrypoint.network_watch import NetworkWatch
from entrypoint.routing.lookup import reply_routes, require_unchanged_replies
from entrypoint.routing.ownership import claim, saver
from entrypoint.routing.plan import decode
from entrypoint.routing.reconcile import apply, list_all
from entrypoint.routing.uplinks import find_uplinks
from entrypoint.settings import Settings, describe
from entrypoint.status import server
from entrypoint.status.board import Board, Run
from entrypoint.unwind import UnwindStack
from entrypoint.wireguard.open import DEFAULT_PLACES, Places, check_available, open_device

log = logging.getLogger("ss-warp")


async def keep_up(run: Run, places: Places = DEFAULT_PLACES) -> None:
    """Bring the tunnel up and keep it healthy until cancelled; start over when the account was replaced.

    Afterwards everything is as before, except that the kill switch stays closed in the own placement,
    and on a host after a failure. Raises Error for what only a person can mend.
    """
    renewed, rechecks = True, Rechecks()
    while renewed:
        renewed = False
        try:
            await bring_up(run, places, rechecks)
        except* RenewedError:
            renewed = True


async def bring_up(run: Run, places: Places, rechecks: Rechecks) -> None:
    """Bring the tunnel up and keep it healthy until cancelled; undo everything on the way out."""
    settings, world, board = run.settings, run.world, run.board
    on_host = desired.on_host(settings)
    record = run.state_file(NETWORK_FILE)
    first_start = not exists(settings.account.state_dir)
    async with UnwindStack() as stack:
        enter = stack.enter_async_context

        # 1. Look, change nothing: are we alone, able, and is there a way out?
        stack.enter_context(state_dir.lock(settings.account.state_dir))
        recorded, snapshot = state_dir.read(record), await list_all(world.netlink)
        ids = desired.choose_ids(settings, decode(recorded), snapshot)
        uplinks = find_uplinks(snapshot, ids.links, host=on_host)
        if on_host:
            desired.require_uplink(snapshot, uplinks)
        listening = world.netlink.listening_ports()
        for sentence in desired.what_stays_cut_off(settings, snapshot):
            log.warning("%s", sentence)
        await check_available(settings.tunnel.implementation, world.netlink, places)

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
        kept = await upkeep.load_or_register()
        secrets = client_details.load_or_generate(settings)
        host = await choose_public_host(run, firewall, uplinks, detect=not secrets.shown)
        endpoints = await resolve_endpoints(run, firewall, kept.account, uplinks)
        state = desired.DesiredState(settings, ids, kept.account, endpoints, listening)
        uplinks = state.look(snapshot)
        state.require_family(uplinks)

        # 4. The tunnel: the policy first, because wireguard-go greets its peer as soon as it is
        #    configured; then the device, then the rules and routes that lead into it.
        await firewall.set(state.policy(uplinks))
        device = await enter(open_device(settings.tunnel.implementation, state.device(), world, log, places))
        if device.implementation == "kernel":
            # The kernel has no place for reserved bytes: nftables writes them, from before wg0 is up.
            state = replace(state, engine=device.implementation)
            await firewall.set(state.policy(uplinks))
        replies = await reply_routes(world.netlink, uplinks.addresses if on_host else ())
        await enter(apply(state.plan(uplinks), world.netlink))
        await require_unchanged_replies(world.netlink, replies)
        firewall.arm()
        watch = NetworkWatch(state, world, firewall, uplinks)
        watch.close_older()
        watch.say_occupied(uplinks)
        board.device(device.implementation, endpoints[0], state.device().reserved)
        level = logging.INFO if first_start else logging.DEBUG
        log.log(level, "brought up %s (%s), routes and firewall", ids.device, device.implementation)

        # 5. Keep it healthy; serve once a request has been answered through it.
        monitor = HealthMonitor(
            device=device,
            config=state.device(),
            endpoints=endpoints,
            probe=state.probe(uplinks),
            world=world,
            observer=board,
            restore=watch.reconcile,
            doubt=upkeep.doubt,
            log=log,
            traffic=world.netlink.traffic,
            exit_on_fatal=settings.health.exit_on_fatal,
            triggers=watch.triggers,
            other_key=kept.next_private_key,
        )
        async with anyio.create_task_group() as tasks:
            for task in (
                monitor.keep_device,
                watch.watch_network,
                watch.watch_firewall,
                upkeep.recheck_when_doubted,
            ):
                tasks.start_soon(task)
            tasks.start_soon(_show_counters, monitor, board, settings.health.interval)
            await monitor.connect()
            kept = settle_key(run.state_file(ACCOUNT_FILE), kept, monitor.config.private_key)
            monitor.other_key = None
            tasks.start_soon(upkeep.recheck_licence, kept)
            tasks.start_soon(monitor.run)
            if settings.shadowsocks.on:
                await tasks.start(ssserver.keep_running, run, state, secrets, watch)
                if not secrets.shown:
                    client_details.show(host, settings, secrets.credentials)


async def _show_counters(monitor: HealthMonitor, board: Board, interval: float) -> None:
    """Keep endpoint and counters on the board current."""
    while True:
        await monitor.clock.sleep(interval)
        board.device(monitor.device.implementation, monitor.config.endpoint, monitor.config.reserved)
        with suppress(OSError):
            board.counted(await monitor.device.stats())


def serve(settings: Settings) -> int:
    """Run the chain until a signal asks for its end; return 0. Raises what ended it, all undone."""
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
    """Run health server and chain; return when one of STOP has come and all is undone."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on_signal, tasks.cancel_scope, run.board)
        await tasks.start(server.serve, run.settings.health.server_address, run.board)
        await keep_up(run)
        tasks.cancel_scope.cancel()


async def _cancel_on_signal(scope: anyio.CancelScope, board: Board) -> None:
    with anyio.open_signal_receiver(*STOP) as signals:
        async for _ in signals:
            board.stopping()
            scope.cancel()
