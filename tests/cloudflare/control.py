"""The control interface: what tests and the demo ask and set, as JSON over HTTP."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from ipaddress import ip_address
from typing import Any

from tests.cloudflare.api import Api, calls_json
from tests.cloudflare.authority import Certificate
from tests.cloudflare.config import Address
from tests.cloudflare.edge import Edge
from tests.cloudflare.fabric import Fabric
from tests.cloudflare.faults import Fault
from tests.cloudflare.limits import Budget
from tests.cloudflare.origin import Origin
from tests.cloudflare.rules import port_rules
from tests.cloudflare.web import Request, Response

type Command = Callable[[Any], Awaitable[object]]


class Control:
    """One table of commands; each takes the request's JSON and returns the answer's."""

    def __init__(
        self,
        api: Api,
        edge: Edge,
        origin: Origin,
        fabric: Fabric,
        present: Callable[[Certificate], None],
        present_origin: Callable[[Certificate], None],
        names: dict[str, tuple[Address, ...]],
    ) -> None:
        self._api, self._edge, self._origin, self._fabric = api, edge, origin, fabric
        self._present, self._present_origin, self._names = present, present_origin, names
        self._commands: Mapping[tuple[str, str], Command] = {
            ("GET", "/calls"): self._calls,
            ("DELETE", "/calls"): self._forget_calls,
            ("GET", "/faults"): self._waiting,
            ("POST", "/faults"): self._fault,
            ("DELETE", "/faults"): self._heal,
            ("PUT", "/budget"): self._budget,
            ("PUT", "/licences"): self._licences,
            ("DELETE", "/licences"): self._revoke,
            ("PATCH", "/manners"): self._manners,
            ("PUT", "/port"): self._port,
            ("PUT", "/certificate"): self._certificate,
            ("PATCH", "/device"): self._device,
            ("PATCH", "/names"): self._name,
            ("PATCH", "/access"): self._access,
            ("POST", "/access/token"): self._mint,
            ("GET", "/edge/devices"): self._devices,
            ("PATCH", "/edge/faults"): self._spoil_edge,
            ("DELETE", "/edge/faults"): self._heal_edge,
            ("POST", "/edge/restart"): self._restart_edge,
            ("PUT", "/origin/certificate"): self._origin_certificate,
            ("PUT", "/origin/clock"): self._origin_clock,
            ("GET", "/origin/seen"): self._seen,
            ("DELETE", "/origin/seen"): self._forget_seen,
            ("GET", "/namespaces"): self._namespaces,
        }

    async def answer(self, request: Request) -> Response:
        """Answer one command; 404 names those there are, 400 says what is wrong."""
        command = self._commands.get((request.method, request.path))
        if command is None:
            known = [" ".join(one) for one in self._commands]
            return _json(404, {"commands": known})
        body = await request.body()
        try:
            result = await command(json.loads(body) if body else None)
        except (TypeError, ValueError, KeyError) as error:
            return _json(400, {"error": str(error)})
        return _json(200, result)

    async def _calls(self, _: Any) -> object:
        return calls_json(self._api.calls)

    async def _forget_calls(self, _: Any) -> None:
        self._api.calls.clear()

    async def _waiting(self, _: Any) -> object:
        return [one.plain() for one in self._api.faults.waiting()]

    async def _fault(self, body: Any) -> None:
        self._api.faults.add(*(Fault.of(one) for one in body))

    async def _heal(self, _: Any) -> None:
        self._api.faults.clear()

    async def _budget(self, body: Any) -> None:
        self._api.budget = Budget(**body)

    async def _licences(self, body: Any) -> None:
        self._api.accounts.licences.sold.update(body)

    async def _revoke(self, body: Any) -> None:
        self._api.revoke(str(body))

    async def _manners(self, body: Any) -> None:
        self._api.manners = replace(self._api.manners, **body)

    async def _port(self, body: Any) -> None:
        self._fabric.here.nft(port_rules(self._fabric.config.api_port, str(body)))

    async def _certificate(self, body: Any) -> None:
        self._present(body)

    async def _device(self, body: Any) -> None:
        await self._api.change(body["id"], body["changes"])

    async def _name(self, body: Any) -> None:
        for name, addresses in body.items():
            if addresses is None:
                self._names.pop(name, None)
            else:
                self._names[name] = tuple(map(ip_address, addresses))

    async def _access(self, body: Any) -> None:
        self._api.access = replace(self._api.access, **body)

    async def _mint(self, body: Any) -> object:
        return self._api.access.mint(**(body or {}))

    async def _devices(self, _: Any) -> object:
        return self._edge.seen()

    async def _spoil_edge(self, body: Any) -> None:
        self._edge.spoil(**{k: tuple(v) if isinstance(v, list) else v for k, v in body.items()})

    async def _heal_edge(self, _: Any) -> None:
        self._edge.heal()

    async def _restart_edge(self, body: Any) -> None:
        await self._edge.restart(process=bool((body or {}).get("process")))

    async def _origin_certificate(self, body: Any) -> None:
        self._present_origin(body)

    async def _origin_clock(self, body: Any) -> None:
        self._origin.ahead = float(body)

    async def _seen(self, _: Any) -> object:
        return [asdict(one) for one in self._origin.seen]

    async def _forget_seen(self, _: Any) -> None:
        self._origin.seen.clear()

    async def _namespaces(self, _: Any) -> object:
        return {name: one.path for name, one in self._fabric.inner.items()}


def _json(status: int, body: object) -> Response:
    return Response(status, json.dumps(body).encode() + b"\n", {"content-type": "application/json"})
