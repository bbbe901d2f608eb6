"""The edge: one namespace per device and in it one wireguard-go per outer family, all with one private key.

One for both families would not do: after an answer by IPv4, wireguard-go 0.0.20231211 sends those by IPv6 to
the first four bytes of the address (its address pool keeps the shorter slice).
"""

import os
from dataclasses import asdict, replace
from typing import Any

import anyio

from tests.cloudflare.config import Config
from tests.cloudflare.devices import ADDRESS4, Device, Devices, addresses
from tests.cloudflare.engine import Engine
from tests.cloudflare.fabric import Fabric
from tests.cloudflare.rules import INNER4, INNER6, LISTEN4, LISTEN6, MARK6, EdgeFaults, device_rules

MTU = 1280
TABLE6 = 6


class Station:
    """A device's namespace with its engines."""

    def __init__(self, fabric: Fabric, config: Config, device: Device, edge_key: str) -> None:
        self.device, self._config, self._edge_key = device, config, edge_key
        self._place = addresses(config, device.number)
        name = f"cf{os.getpid()}n{device.number}"
        self._engines = tuple(
            Engine(f"{name}{family}", port, device.reserved, config.state, gro=config.gro)
            for family, port in (("v4", LISTEN4), ("v6", LISTEN6))
        )
        place, first = self._place, device.number == 1
        # The first device answers in the whole range, so that every endpoint a client may know works.
        ours4 = config.endpoints4 if first else place.endpoint4
        ours6 = config.endpoints6 if first else place.endpoint6
        reached = (ours4, ours6, place.exit4, place.exit6)
        # An engine that retries forgets the address it was asked at: it then sends from the endpoint's.
        own = (place.endpoint4, place.endpoint6)
        self._namespace = fabric.add(f"device-{device.number}", device.number, reached, own)
        four, six = (one.interface for one in self._engines)
        self._namespace.ip(
            *(("link set dev uplink gso_max_segs 1",) if config.one_by_one else ()),
            *(f"tuntap add dev {one} mode tun vnet_hdr" for one in (four, six)),
            *(f"link set dev {one} up" for one in (four, six)),
            *(f"route add {one} dev {four}" for one in (ADDRESS4, device.address6)),
            *(f"route add {one} dev {six} table {TABLE6}" for one in (ADDRESS4, device.address6)),
            *(f"route add local {one} dev lo" for one in (ours4, ours6, INNER4, INNER6) if one not in own),
            # Answers are translated back before they are routed: the rest of an exit's packets are strays.
            *(f"route add blackhole {one}" for one in (place.exit4, place.exit6)),
        )
        for family in ("-4", "-6"):
            self._namespace.output("ip", family, "rule", "add", "fwmark", str(MARK6), "lookup", str(TABLE6))

    async def start(self) -> None:
        """Start the engines and give them the device's key. Raises TimeoutError."""
        with self._namespace.entered():
            for engine in self._engines:
                engine.start()
        for engine in self._engines:
            await engine.answering()
        self._namespace.ip(*(f"link set dev {one.interface} mtu {MTU} up" for one in self._engines))
        self.listen()

    def listen(self) -> None:
        """Forget every session and know the device's key alone, with exactly its addresses."""
        allowed = (f"{ADDRESS4}/32", f"{self.device.address6}/128") if self.device.served else ()
        for engine in self._engines:
            engine.listen(self._edge_key, self.device.key, allowed)

    def move(self) -> None:
        """Lead packets to the device's new tunnel address."""
        four, six = (one.interface for one in self._engines)
        self._namespace.ip(
            f"route replace {self.device.address6} dev {four}",
            f"route replace {self.device.address6} dev {six} table {TABLE6}",
        )

    def police(self, faults: EdgeFaults) -> None:
        """Load the packet rules with these faults, and tell the engines theirs."""
        for engine in self._engines:
            engine.ledger.refuse(faults.reserved)
        interfaces = (self._engines[0].interface, self._engines[1].interface)
        rules = device_rules(self._config, self.device.address6, self._place, interfaces, faults)
        self._namespace.nft(rules)

    def stop(self) -> None:
        """End the engines; the interfaces stay."""
        for engine in self._engines:
            engine.stop()

    def counters(self) -> dict[str, float]:
        """Return the latest handshake (seconds since 1970, 0 = never), and the sums of all else."""
        four, six = (one.counters() for one in self._engines)
        sums = {name: four[name] + six[name] for name in four}
        return sums | {"handshake": max(four["handshake"], six["handshake"])}


class Edge:
    """All stations. `put` follows the API's devices."""

    def __init__(self, config: Config, fabric: Fabric, devices: Devices) -> None:
        self._config, self._fabric, self._devices = config, fabric, devices
        self._stations: dict[int, Station] = {}
        self._faults = EdgeFaults()
        self._lock = anyio.Lock()

    async def put(self, device: Device) -> None:
        """Make this device work as it is now; a changed key or deletion ends its session at once."""
        async with self._lock:
            station = self._stations.get(device.number)
            if station is None:
                station = Station(self._fabric, self._config, device, self._devices.edge_key)
                self._stations[device.number] = station
                station.police(self._faults)
                await station.start()
                return
            before, station.device = station.device, device
            if before.address6 != device.address6:
                station.move()
            if (before.key, before.served, before.address6) != (device.key, device.served, device.address6):
                station.police(self._faults)
                station.listen()

    async def restart(self, *, process: bool) -> None:
        """Lose every session; with `process` by killing wireguard-go."""
        async with self._lock:
            for station in self._stations.values():
                if process:
                    station.stop()
                    await station.start()
                else:
                    station.listen()

    def spoil(self, **changes: Any) -> None:
        """Change faults (EdgeFaults' fields) of all devices, those to come too. Raises TypeError."""
        self._police(replace(self._faults, **changes))

    def heal(self) -> None:
        """Take all faults away."""
        self._police(EdgeFaults())

    def _police(self, faults: EdgeFaults) -> None:
        for station in self._stations.values():
            station.police(faults)
        self._faults = faults

    def warp(self, source: str) -> str:
        """Return what the trace says of this source: on or plus for one of WARP's exits, else off."""
        for one in self._devices.all():
            place = addresses(self._config, one.number)
            if source in (str(place.exit4), str(place.exit6)):
                return "on" if one.account_type == "free" or one.free_session else "plus"
        return "off"

    def connected(self, device: Device) -> bool:
        """Say whether this device has ever had a session."""
        return self._stations[device.number].counters()["handshake"] > 0

    def seen(self) -> list[dict[str, Any]]:
        """Return DeviceSeen's fields of every device."""
        out = []
        for one in self._devices.all():
            place = {name: str(value) for name, value in asdict(addresses(self._config, one.number)).items()}
            who = {name: getattr(one, name) for name in ("id", "token", "key", "active", "address6")}
            out.append(who | place | {"address4": ADDRESS4} | self._stations[one.number].counters())
        return out

    def close(self) -> None:
        """End every wireguard-go."""
        for station in self._stations.values():
            station.stop()
