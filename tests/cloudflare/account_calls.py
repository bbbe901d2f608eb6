"""The calls about a device's account: licence, and the other devices bound to it."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from tests.cloudflare.answers import Refused
from tests.cloudflare.devices import Device, Devices, account_json, new_license
from tests.cloudflare.limits import Licences

ZERO: Final = "0001-01-01T00:00:00Z"

type Changed = Callable[[Device], Awaitable[None]]
type Result = tuple[int, Any]


class AccountCalls:
    """Each takes the device that the token belongs to, the request's body, and `other`, a device's id.

    `connected` says whether a device has had a session: then it goes on as a free one.
    """

    def __init__(self, devices: Devices, changed: Changed, connected: Callable[[Device], bool]) -> None:
        self.licences = Licences()
        self.connected = connected
        self._devices, self._changed = devices, changed

    async def read(self, device: Device, _: Mapping[str, Any], __: str) -> Result:
        """Call 6."""
        return 200, account_json(device)

    async def bind(self, device: Device, body: Mapping[str, Any], _: str) -> Result:
        """Call 7: the answer is partial, with a zero time of creation."""
        key = body.get("license")
        if device.account_type == "team":
            raise Refused(400, [{"code": 1000, "message": "Not available for this account"}])
        if refusal := self.licences.refusal(key, device, self._devices.all()):
            raise Refused(400, [refusal])
        if key != device.license or not device.bound:
            mates = [one for one in self._devices.all() if one.license == key]
            device = self._devices.change(
                device,
                bound=True,
                license=key,
                account_type=self.licences.sold.get(str(key), "free"),
                account_id=mates[0].account_id if mates else str(uuid.uuid4()),
                free_session=self.connected(device),
            )
            await self._changed(device)
        shown = account_json(device) | {"created": ZERO}
        return 200, {name: shown[name] for name in shown.keys() - {"account_type", "license", "usage"}}

    async def unbind(self, device: Device, _: Mapping[str, Any], __: str) -> Result:
        """Call 8: the device keeps its id, and the edge is silent until it is bound again."""
        await self._changed(self._devices.change(device, bound=False))
        return 200, {}

    async def new_license(self, device: Device, _: Mapping[str, Any], __: str) -> Result:
        """Call 9: all devices of the account follow."""
        fresh = new_license()
        self.licences.sold[fresh] = self.licences.sold.pop(device.license, device.account_type)
        for one in self._mates(device):
            self._devices.change(one, license=fresh)
        return 200, {"license": fresh}

    async def mates(self, device: Device, _: Mapping[str, Any], __: str) -> Result:
        """Call 10: the devices of the account."""
        return 200, [bound_json(one) for one in self._mates(device)]

    async def rename(self, device: Device, body: Mapping[str, Any], other: str) -> Result:
        """Call 11: a name; and `active: false` removes it from the list, as the real one does (wgcf#327)."""
        one = self._mate(device, other)
        if "name" in body:
            one = self._devices.change(one, request={**one.request, "name": body["name"]})
        if body.get("active") is False:
            await self._leave(one)
        return await self.mates(device, body, other)

    async def remove(self, device: Device, _: Mapping[str, Any], other: str) -> Result:
        """Call 12."""
        await self._leave(self._mate(device, other))
        return 204, None

    async def _leave(self, device: Device) -> None:
        own = {"license": new_license(), "account_type": "free"}
        await self._changed(self._devices.change(device, bound=False, **own))

    def _mates(self, device: Device) -> list[Device]:
        return [
            one for one in self._devices.all() if one.active and one.bound and one.license == device.license
        ]

    def _mate(self, device: Device, other: str) -> Device:
        for one in self._mates(device):
            if one.id == other:
                return one
        raise Refused(404, [{"code": 1000, "message": "Device not found"}])


def bound_json(device: Device) -> dict[str, Any]:
    """Return a device as the list of an account's shows it."""
    name = {"name": device.request["name"]} if device.request.get("name") else {}
    return name | {
        "id": device.id,
        "type": "Android",
        "model": device.request.get("model", ""),
        "created": device.created,
        "activated": device.created,
        "active": True,
        "role": "child",
    }
