"""Answers as faults leave them: other values, other bodies, bad endings, floods."""

import gzip
import json
from collections.abc import Mapping

from tests.cloudflare.faults import Fault, overridden
from tests.cloudflare.web import Response


def spoiled(response: Response, fault: Fault) -> Response:
    """Return the answer as the fault leaves it. Raises KeyError, IndexError, TypeError: see `overridden`."""
    body, had = response.body, dict(response.headers)
    if fault.zeros:
        return _zeros(fault.zeros, had, packed=fault.packed)
    if fault.values:
        answered = json.loads(body)
        inner = answered.get("result", answered)
        changed = overridden(inner, fault.values)
        body = json.dumps(answered | {"result": changed} if "result" in answered else changed).encode()
    if fault.body is not None:
        body = fault.body.encode()
    return Response(fault.status or response.status, body, had | dict(fault.headers), fault.ending)


def _zeros(size: int, had: Mapping[str, str], *, packed: bool) -> Response:
    """Return an answer of that many zero bytes: as they are, or packed a thousand to one (A15)."""
    block = bytes(1 << 20)
    if packed:
        return Response(200, gzip.compress(bytes(size), 1), dict(had) | {"content-encoding": "gzip"})
    return Response(200, b"", dict(had), blocks=(block for _ in range(size // len(block))), length=size)
