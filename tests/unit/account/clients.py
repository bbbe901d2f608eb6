"""An API client over a transport that answers from a table."""

import httpx
import pytest

from entrypoint.account.api import WarpApi
from entrypoint.account.replies import ApiError
from tests.fakes.http import API, DNS, FakeHttp, Holes
from tests.fakes.warp_api import EDGE_KEY, FakeApi, Fault

HOST = "api.cloudflareclient.com"
NOW = 1_767_322_845.25  # 2026-01-02T03:00:45.250Z
MARK = 0x1000


class FixedClock:
    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return NOW

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("one call waits for nothing")


class Setting:
    """An API behind a DNS and a firewall."""

    def __init__(self, **options: object) -> None:
        self.site = FakeApi()
        self.holes = Holes()
        self.http = FakeHttp({API: self.site}, {DNS: {HOST: [API]}}, self.holes)
        self.api = WarpApi(
            http=self.http,
            clock=FixedClock(),
            reach=self.holes.reach,
            servers=(DNS,),
            mark=MARK,
            **options,  # type: ignore[arg-type]
        )

    async def register(self) -> dict[str, object]:
        device = (await self.api.register(EDGE_KEY, "lab")).value
        assert isinstance(device, dict)
        assert not self.holes.open
        return device

    async def fail(self, answer: httpx.Response | Exception | None = None) -> ApiError:
        if answer:
            # Twice: a 403 is tried as another client.
            turned_away = isinstance(answer, httpx.Response) and answer.status_code == 403
            self.site.faults.extend([Fault(answer)] * (1 + turned_away))
        with pytest.raises(ApiError) as caught:
            await self.register()
        assert not self.holes.open
        assert "\n" not in str(caught.value)
        assert str(caught.value).isprintable()
        return caught.value
