"""Run the emulator: `--config FILE`; or ask a running one: `--config FILE ask GET /calls`."""

import argparse
import json
import signal
from functools import partial
from pathlib import Path

import anyio

from tests.cloudflare.config import Config


async def emulate(config: Config) -> None:
    """Be Cloudflare until SIGTERM; prints `ready` once everything listens."""
    from tests.cloudflare.api import Api
    from tests.cloudflare.authority import authority, present, server_context
    from tests.cloudflare.config import ORIGIN_ADDRESSES, TEAM_NAME
    from tests.cloudflare.control import Control
    from tests.cloudflare.devices import Devices
    from tests.cloudflare.edge import Edge
    from tests.cloudflare.engine import UAPI_DIRECTORY
    from tests.cloudflare.fabric import Fabric
    from tests.cloudflare.names import zone
    from tests.cloudflare.netns import private_directory
    from tests.cloudflare.origin import Origin
    from tests.cloudflare.web import Request, Response, listening, listening_unix, serve

    config.state.mkdir(parents=True, exist_ok=True)
    private_directory(str(UAPI_DIRECTORY))
    ca = authority(config.state)
    known = dict(zone(config))
    fabric = Fabric(config)
    devices = Devices(config.state)
    edge = Edge(config, fabric, devices)
    # One certificate for both: any Cloudflare front serves any of its hosts.
    identities = [*known, *ORIGIN_ADDRESSES, *config.api_addresses, *config.published]
    context, front_context = server_context(ca, identities), server_context(ca, identities)
    origin = Origin(known, context, edge.warp)
    api = Api(config, devices, edge.put, edge.connected)
    present_api, present_origin = (partial(present, one, ca, identities) for one in (front_context, context))
    control = Control(api, edge, origin, fabric, present_api, present_origin, known)

    async def front(request: Request) -> Response:
        if request.headers.get("host") == TEAM_NAME:
            return api.access.answer(request)
        trace = request.path.startswith("/cdn-cgi/")
        return await (origin if trace else api).answer(request)

    fabric.sweep()
    fabric.prepare(ORIGIN_ADDRESSES)
    config.socket.unlink(missing_ok=True)
    try:
        for device in devices.all():
            await edge.put(device)
        async with origin.listening(fabric), anyio.create_task_group() as tasks:
            tasks.start_soon(serve, listening("::", config.api_port), front, front_context)
            tasks.start_soon(serve, listening_unix(str(config.socket)), control.answer)
            if config.control:
                host, _, port = config.control.rpartition(":")
                tasks.start_soon(serve, listening(host.strip("[]"), int(port)), control.answer)
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                print("ready", flush=True)
                async for _ in signals:
                    break
            tasks.cancel_scope.cancel()
    finally:
        edge.close()
        fabric.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cloudflare", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("ask", nargs="*", metavar="ask METHOD PATH [JSON]")
    options = parser.parse_args()
    config = Config.load(options.config.read_text())
    match options.ask:
        case []:
            anyio.run(emulate, config)
        case ["ask", method, path, *body]:
            from tests.cloudflare.client import Control

            answer = Control(config.socket).ask(method, path, json.loads(body[0]) if body else None)
            print(json.dumps(answer, indent=1))
        case _:
            parser.error("say nothing, or: ask METHOD PATH [JSON]")


if __name__ == "__main__":
    main()
