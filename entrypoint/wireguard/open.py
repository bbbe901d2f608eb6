"""Which WireGuard: the kernel, else userspace. After `open_device` everything is the same for both."""

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from entrypoint.early.preflight import TUN, require_tun
from entrypoint.errors import Error, PlatformError, explain
from entrypoint.linux.kernel_objects import DeviceConfig, Link
from entrypoint.linux.proc import ENGINE
from entrypoint.linux.world import Netlink, World
from entrypoint.routing.reconcile import delete_link
from entrypoint.unwind import UnwindStack
from entrypoint.wireguard.device import Choice, Device, Implementation, KernelDevice
from entrypoint.wireguard.userspace import UserspaceDevice


@dataclass(frozen=True, slots=True)
class Places:
    """Paths that userspace WireGuard uses; tests redirect them."""

    tun: Path = Path(TUN)
    sockets: Path = Path("/var/run/wireguard")


DEFAULT_PLACES = Places()


@dataclass(slots=True)
class Engine:
    """The implementation to open, and a fall-back for a machine that breaks the first choice.

    Seen in the field: kernels whose TUN refuses merged writes, NICs that mangle UDP segmentation, and kernel
    modules that never hear an answer. Only where the setting is `auto`, and back again if that did not help.
    """

    choice: Choice
    running: Implementation = "userspace"
    automatic: bool = field(init=False)

    def __post_init__(self) -> None:
        self.automatic = self.choice == "auto"

    def switch(self) -> None:
        """Open the other implementation from now on."""
        self.choice = "userspace" if self.running == "kernel" else "kernel"

    async def can_switch(self, world: World, places: Places) -> bool:
        """Return whether this machine has the other implementation, and the user leaves the choice."""
        if not self.automatic:
            return False
        try:
            await check_available(
                "userspace" if self.running == "kernel" else "kernel", world.netlink, places
            )
        except Error:
            return False
        return True


PROBE_LINK = "ss-probe"
"""An interface that is created only to see whether it can be."""

NO_KERNEL_WIREGUARD = PlatformError(
    "this kernel has no WireGuard", "set WIREGUARD_IMPLEMENTATION=auto, or on the host: modprobe wireguard"
)


async def check_available(implementation: Choice, netlink: Netlink, places: Places = DEFAULT_PLACES) -> None:
    """Check that `open_device` will have what it needs, so that no account is registered for nothing.

    Raises PlatformError as `open_device` does.
    """
    try:
        if implementation == "userspace" or not await kernel_has_wireguard(netlink):
            if implementation == "kernel":
                raise NO_KERNEL_WIREGUARD
            require_tun(places.tun)
            _require_sockets(places)
    except OSError as error:
        raise explain("cannot create a WireGuard interface", error) from error


async def kernel_has_wireguard(netlink: Netlink) -> bool:
    """Create and delete an interface to see whether the kernel has WireGuard. Raises OSError."""
    async with UnwindStack() as stack:
        stack.undo(PROBE_LINK, partial(delete_link, netlink, PROBE_LINK))
        await delete_link(netlink, PROBE_LINK)
        return await _add_kernel(PROBE_LINK, netlink)
    raise AssertionError("an UnwindStack swallows nothing")


@asynccontextmanager
async def open_device(
    implementation: Choice,
    config: DeviceConfig,
    world: World,
    log: logging.Logger,
    places: Places = DEFAULT_PLACES,
) -> AsyncIterator[Device]:
    """Create and configure the device, down and without addresses; delete it on exit.

    Deletes a leftover link of this name first; the caller has checked that the name is ours.
    Raises PlatformError for what the container or kernel lacks.
    """
    async with UnwindStack() as stack:
        try:
            old = await world.netlink.link(config.name)
            if old is not None and old.kind not in {"tun", "wireguard"}:
                raise PlatformError(
                    f"cannot create {config.name}: "
                    "an interface with this name already exists and is not ours",
                    "set WIREGUARD_INTERFACE to an unused name",
                )
            stack.undo(f"{config.name}", partial(delete_link, world.netlink, config.name))
            device = await _open_kernel_or_userspace(implementation, config, world, log, places, stack)
        except OSError as error:
            raise explain(f"cannot create {config.name}", error) from error
        yield device


async def _open_kernel_or_userspace(
    implementation: Choice,
    config: DeviceConfig,
    world: World,
    log: logging.Logger,
    places: Places,
    stack: UnwindStack,
) -> Device:
    await delete_link(world.netlink, config.name)
    if implementation != "userspace":
        if await _add_kernel(config.name, world.netlink):
            kernel = KernelDevice(config, world.netlink)
            await kernel.configure(config)
            return kernel
        if implementation == "kernel":
            raise NO_KERNEL_WIREGUARD
        log.info("this kernel has no WireGuard: using %s", ENGINE)
    require_tun(places.tun)
    _require_sockets(places)
    userspace = UserspaceDevice(config, world, log, places.sockets)
    stack.undo(ENGINE, userspace.end)
    await userspace.recreate()
    return userspace


async def _add_kernel(name: str, netlink: Netlink) -> bool:
    """Create a kernel device; return False when the kernel does not know the kind."""
    try:
        await netlink.add(Link(name, "wireguard"))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    return True


def _require_sockets(places: Places) -> None:
    try:
        places.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise explain(f"cannot create {places.sockets}", error, "run") from error
