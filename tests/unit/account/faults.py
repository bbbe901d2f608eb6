"""What an API answers while it is ill: what passes, and what is final."""

import httpx

from tests.fakes.warp_api import Fault, refusal

FAULTS: dict[str, Fault] = {
    "429": Fault(httpx.Response(429)),
    "500": Fault(httpx.Response(500)),
    "500 but created": Fault(httpx.Response(500), created=True),
    "answer lost after creating": Fault(httpx.ReadError("reset"), created=True),
    "truncated": Fault(httpx.Response(200, content=b'{"id": "1'), created=True),
    "page": Fault(httpx.Response(200, html="<html>")),
}


FINAL: dict[str, Fault] = {
    "400": Fault(refusal(400, "Invalid registration request")),
    "401": Fault(httpx.Response(401)),
    "403": Fault(httpx.Response(403, text="error code: 1020")),
    "404": Fault(httpx.Response(404)),
}
