"""The straight path, and the only place that knows the order."""

import logging
from contextlib import suppress
from dataclasses import replace

import anyio

from entrypoint import files, inbound, wanted
from entrypoint.accounts import Doubt, RenewedError, confirm, farewell, questioned, registered
from entrypoint.bootstrap import public_host, reachable
from entrypoint.health.monitor import Tunnel, connect, keep_device, watch_health
from entrypoint.log import first_run, show
from entrypoint.network.claims import claimed, recorder
from entrypoint.network.deadman import answer_ways, require_ways
from entrypoint.network.firewall import host_kill_switch, kill_switch
from entrypoint.network.numbers import decode
from entrypoint.network.reconcile import applied, listed
from entrypoint.network.uplinks import uplinks
from entrypoint.ports import World
from entrypoint.settings import Settings
from entrypoint.status import Board
from entrypoint.surroundings import Surroundings
from entrypoint.unwind import UnwindStack
from entrypoint.warp.rotation import settled
from entrypoint.warp.store import FILE, known
from entrypoint.wireguard.choice import USUAL, Places, open_device, require_engine

NUMBERS = "network.json"

log = logging.getLogger("ss-warp")


async def run(settings: Settings, world: World, board: Board, places: Places = USUAL) -> None:
    """Bring the chain up and keep it well until cancelled; begin anew when the account is another.

    Then everything is as before; in the own placement the kill switch stays closed behind us, on a host
    after a failure. Raises Error for what only a person can mend.
    """
    renewed = True
    while renewed:
        renewed = False
        try:
            await _up(settings, world, board, places)
        except* RenewedError:
            renewed = True


async def _up(settings: Settings, world: World, board: Board, places: Places) -> None:
    on_host = wanted.on_host(settings)
    record = settings.account.state_dir / NUMBERS
    phase = logging.DEBUG if known(settings.account.state_dir) else logging.INFO
    async with UnwindStack() as stack:
        up = stack.enter_async_context

        # Alone, able, and with a way out: all that is known before anything is changed.
        stack.enter_context(files.locked(settings.account.state_dir))
        recorded, snapshot = files.read(record), await listed(world.netlink)
        numbers = wanted.numbers(settings, decode(recorded), snapshot)
        found = uplinks(snapshot, numbers.links, host=on_host)
        if on_host:
            wanted.require_uplink(snapshot, found)
        listening = world.netlink.listening()
        await require_engine(settings.tunnel.implementation, world.netlink, places)

        # What is ours is on record, then the firewall: closed from here on, on a host for ssserver alone.
        await up(
            claimed(
                numbers,
                world.netlink,
                recorded,
                recorder(record, must=on_host or not known(settings.account.state_dir)),
                mode=wanted.route_mode(settings),
                nft=world.nft if on_host else None,
            )
        )
        first = wanted.blocking(settings, numbers)
        if on_host:
            closed = wanted.after_failure(settings, numbers, found, listening)
            switch = await up(host_kill_switch(world.nft, first, closed, on=settings.firewall.on))
        else:
            switch = await up(kill_switch(world.nft, first, on=settings.firewall.on))

        # Outside the tunnel, through holes in the firewall: the account, and where its endpoints are.
        stack.push_async_callback(farewell(settings, world, board, switch))
        kept = await registered(settings, world, board, switch, found)
        account = kept.account
        secrets = inbound.load_or_generate(settings)
        host = await public_host(settings, world, switch, found, first=secrets.new)
        endpoints = await reachable(settings, world, switch, account, found)
        tunnelled = wanted.Tunnelled(settings, numbers, account, endpoints, listening)
        tunnelled.require_family(found)

        # The firewall that lets nothing out but by the tunnel, the device, and what leads into it. In
        # this order: wireguard-go greets its peer as soon as it is configured.
        await switch.set(tunnelled.policy(found))
        device = await up(open_device(settings.tunnel.implementation, tunnelled.device(), world, log, places))
        if device.implementation == "kernel":
            # It has no place for reserved bytes: nftables writes them, before wg0 is up and greets its peer.
            tunnelled = replace(tunnelled, engine=device.implementation)
            await switch.set(tunnelled.policy(found))
        ways = await answer_ways(world.netlink, found.addresses if on_host else ())
        await up(applied(tunnelled.plan(found), world.netlink))
        await require_ways(world.netlink, ways)
        switch.lasting = True
        board.device(device.implementation, endpoints[0], tunnelled.device().reserved)
        log.log(
            phase, "%s is up (%s), routes and firewall are in place", numbers.device, device.implementation
        )

        doubt = Doubt()
        surroundings = Surroundings(tunnelled, world, switch, found)
        tunnel = Tunnel(
            device=device,
            config=tunnelled.device(),
            endpoints=endpoints,
            probe=tunnelled.probe(found),
            world=world,
            observer=board,
            restored=surroundings.settle,
            doubt=doubt,
            log=log,
            traffic=world.netlink.traffic,
            exit_on_fatal=settings.health.exit_on_fatal,
            suspicions=surroundings.suspicions,
            other_key=kept.next_private_key,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_device, tunnel)
            tasks.start_soon(surroundings.follow)
            tasks.start_soon(surroundings.guard)
            tasks.start_soon(questioned, settings, world, board, switch, found, doubt)
            tasks.start_soon(_count, tunnel, board, settings.health.interval)
            await connect(tunnel)
            kept = settled(settings.account.state_dir / FILE, kept, tunnel.config.private_key)
            tunnel.other_key = None
            tasks.start_soon(confirm, settings, world, board, switch, kept)
            tasks.start_soon(watch_health, tunnel)
            if settings.shadowsocks.on:
                await tasks.start(inbound.serve, tunnelled, secrets, surroundings, world, board)
                if secrets.new and settings.logs.print_link:
                    port = settings.shadowsocks.public_port or settings.shadowsocks.port
                    show(first_run(host, port, secrets.credentials), settings.logs.format)


async def _count(tunnel: Tunnel, board: Board, interval: float) -> None:
    """Keep endpoint and counters on the board current, for ever."""
    while True:
        await tunnel.clock.sleep(interval)
        board.device(tunnel.device.implementation, tunnel.config.endpoint, tunnel.config.reserved)
        with suppress(OSError):
            board.counted(await tunnel.device.stats())
