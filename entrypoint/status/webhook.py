"""Post each change of health to WEBHOOK_URL: through the tunnel while it works, outside while it does not."""

import json
import logging
from datetime import UTC, datetime

import anyio

from entrypoint.addresses import MARK, Destination
from entrypoint.firewall.killswitch import KillSwitch
from entrypoint.linux.http import request, url_site
from entrypoint.linux.world import Bound, Marked
from entrypoint.status.board import Run
from entrypoint.status.report import Status

TIMEOUT = 10.0
"""Seconds that one attempt may take."""

PAUSES = (0.0, 5.0, 30.0, 120.0)
"""Seconds before each attempt; then the message is dropped."""

QUEUE = 16
"""Messages that wait at most; a flapping tunnel must not fill the memory."""

log = logging.getLogger("ss-warp")


def format_message(url: str, before: Status, after: Status) -> tuple[dict[str, str], bytes]:
    """Return headers and body: text for ntfy, JSON for everything else."""
    (word, reason), old = after.health, before.health[0]
    if "ntfy" in url_site(url)[0]:
        priority = "default" if after.healthy else "high"
        headers = {"Title": f"ss-warp: {word}", "Priority": priority, "Content-Type": "text/plain"}
        return headers, f"{reason} (was {old})".encode()
    body = {
        "text": f"ss-warp: {word}: {reason}",
        "health": str(word),
        "healthy": after.healthy,
        "previous": str(old),
        "reason": reason,
        "cause": after.cause.sentence if after.cause else None,
        "remedy": after.cause.remedy if after.cause else None,
        "time": datetime.fromtimestamp(max(after.since, after.answered), UTC).isoformat(timespec="seconds"),
    }
    return {"Content-Type": "application/json"}, json.dumps(body).encode()


async def post_changes(run: Run, switch: KillSwitch, device: str) -> None:
    """Post changes until cancelled."""
    if run.settings.health.webhook_url is None:
        return
    url = run.settings.health.webhook_url.reveal()
    send, receive = anyio.create_memory_object_stream[tuple[Status, Status]](QUEUE)

    def on_change(before: Status, after: Status) -> None:
        try:
            send.send_nowait((before, after))
        except anyio.WouldBlock:
            log.debug("dropped a webhook message: %d are waiting", QUEUE)

    run.board.on_change = on_change
    async with send, receive:
        async for before, after in receive:
            await _deliver(run, switch, device, url, *format_message(url, before, after))


async def _deliver(
    run: Run, switch: KillSwitch, device: str, url: str, headers: dict[str, str], body: bytes
) -> None:
    error: OSError | None = None
    for pause in PAUSES:
        await run.world.clock.sleep(pause)
        try:
            await _post(run, switch, device, url, headers, body)
        except OSError as failure:
            error = failure
        else:
            return
    log.warning("cannot post to WEBHOOK_URL: %s", error)


async def _post(
    run: Run, switch: KillSwitch, device: str, url: str, headers: dict[str, str], body: bytes
) -> None:
    (host, port), servers, http = url_site(url), run.settings.dns.addresses, run.world.http
    if run.board.status.healthy:
        way = Bound(device)
        addresses = await http.lookup(host, servers, way)
        await request(http, "POST", url, way, addresses, headers, body, limit=TIMEOUT)
        return
    marked = Marked(MARK.value)
    async with switch.hole(Destination(one, 53, kind) for one in servers for kind in ("udp", "tcp")):
        addresses = await http.lookup(host, servers, marked)
    async with switch.hole(Destination(one, port, "tcp") for one in addresses):
        await request(http, "POST", url, marked, addresses, headers, body, limit=TIMEOUT)
