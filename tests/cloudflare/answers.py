"""The API's answers: their envelope, headers, and refusals."""

import json
import secrets
from typing import Any

from tests.cloudflare.web import Response


class Refused(Exception):  # noqa: N818 - an answer, not a defect
    """The call is answered with this status; `errors` go into the envelope, text stands alone."""

    def __init__(self, status: int, errors: list[Any] | str) -> None:
        super().__init__(status, errors)
        self.status, self.errors = status, errors

    def response(self) -> Response:
        """Return it as it is sent."""
        if isinstance(self.errors, str):
            return Response(self.status, self.errors.encode(), headers("text/plain"))
        return as_json(self.status, envelope(None, self.errors))


def envelope(result: object, errors: list[Any]) -> dict[str, Any]:
    """Return what answers of v0i and v0, and all errors, are wrapped in."""
    return {"result": result, "success": not errors, "errors": errors, "messages": []}


def as_json(status: int, body: object) -> Response:
    """Return a JSON answer."""
    return Response(status, json.dumps(body).encode(), headers("application/json; charset=UTF-8"))


def headers(content_type: str = "") -> dict[str, str]:
    """Return what every answer of a Cloudflare front carries."""
    base = {"server": "cloudflare", "cf-ray": f"{secrets.token_hex(8)}-FRA"}
    base["set-cookie"] = f"__cf_bm={secrets.token_hex(8)}; path=/; HttpOnly; Secure"
    return base | ({"content-type": content_type} if content_type else {})
