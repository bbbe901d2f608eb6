"""The command line, and the commands that only read."""

import argparse
import importlib
import json
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from entrypoint import __version__
from entrypoint.errors import PlatformError, StateError, UsageError
from entrypoint.status.heartbeat import DIRECTORY, LOG_HINT
from shadowsocks.links import CLIENTS


def command_line(arguments: Sequence[str], directory: Path = Path(DIRECTORY)) -> int:
    """Run a command; return its exit code. `directory` holds the supervisor's status. Raises Error."""
    parser = _Parser(prog="ss-warp", description="Shadowsocks in, Cloudflare WARP out.")
    parser.add_argument("--version", action="version", version=f"ss-warp {__version__}")
    if arguments == ["warm"]:  # for the Dockerfile, hence in no list
        return _warm()
    if arguments[:1] in (["help"], ["version"]):
        arguments = [f"--{arguments[0]}", *arguments[1:]]
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="start the tunnel and keep it healthy (default)")
    commands.add_parser("healthcheck", help="exit 0 if a request was answered through the tunnel recently")
    status = commands.add_parser("status", help="show the current status")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as a JSON object (docs/status.md)")
    form.add_argument("--watch", action="store_true", help="refresh it every 2 seconds until Ctrl-C")
    another = commands.add_parser(
        "reconnect", help="start a new session at another endpoint: often, not always, another exit"
    )
    until = another.add_mutually_exclusive_group()
    until.add_argument("--until-colo", metavar="COLO", help="repeat until the exit is there, e.g. FRA")
    until.add_argument("--until", metavar="URL", help="repeat until this page loads through the tunnel")
    another.add_argument(
        "--times", type=int, default=10, metavar="N", help="try at most N times (default 10)"
    )
    commands.add_parser("settings", help="print the effective settings, secrets masked")
    link = commands.add_parser("link", help="print the ss:// link for clients")
    link.add_argument(
        "--qr",
        nargs="?",
        const="text",
        choices=("text", "png", "svg"),
        help="also print a QR code, or write only an image: ss-warp link --qr png >link.png",
    )
    link.add_argument(
        "--base64", action="store_true", help="print the form that Shadowsocks for Android reads"
    )
    link.add_argument("--user", metavar="NAME", help="only for this user")
    link.add_argument("--client", choices=CLIENTS, help="print this client's own format")
    explain = commands.add_parser("explain", help="show which way a packet goes, by which rule, and why")
    explain.add_argument(
        "source", metavar="FROM", nargs="?", help="a local source address; default: none chosen yet"
    )
    explain.add_argument("destination", metavar="TO", help="the destination address")
    explain.add_argument(
        "--ssserver", action="store_true", help="from ssserver's socket, bound to the tunnel"
    )
    explain.add_argument("--mark", type=_up_to(0xFFFFFFFF), default=0, help="with this firewall mark")
    explain.add_argument(
        "--udp", type=_up_to(0xFFFF), default=0, metavar="PORT", help="from a UDP server on this port"
    )
    explain.add_argument("--json", action="store_true", help="as a JSON object")
    _add_account(commands)
    doctor = commands.add_parser("doctor", help="find what is wrong and how to fix it; exit 0 if nothing is")
    doctor.add_argument("--before", action="store_true", help="on a new machine: will ss-warp work here?")
    given = parser.parse_args(arguments, argparse.Namespace(directory=directory))
    actions: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "status": _status,
        "reconnect": _reconnect,
        "settings": _settings,
        "link": _link,
        "explain": _explain,
        "account": _account,
        "doctor": _doctor,
    }
    if given.command not in actions:
        raise UsageError(f"{given.command} takes no arguments")
    return actions[given.command](given) or 0


def _add_account(commands: "argparse._SubParsersAction[_Parser]") -> None:
    account = commands.add_parser("account", help="show, change, export or delete the WARP account")
    actions = account.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("show", help="show the saved account, secrets masked")
    key = actions.add_parser("license", help="bind a WARP+ licence key at the next start")
    key.add_argument("key", metavar="KEY", nargs="?", help="default: read from standard input, hidden")
    actions.add_parser("rotate-key", help="replace the device's WireGuard key at the next start")
    export = actions.add_parser("export", help="print a profile for wg-quick; it contains secrets")
    export.add_argument("--format", choices=("wireguard", "wgcf"), default="wireguard")
    delete = actions.add_parser("delete", help="unregister the device when ss-warp stops")
    delete.add_argument("--yes", action="store_true", help="do not ask for confirmation")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message, f"see {self.prog} --help")


def _status(given: argparse.Namespace) -> None:
    from entrypoint.commands.status import read_status, status_text, watch

    if given.watch:
        watch(given.directory)
        return
    status = read_status(given.directory)
    print(json.dumps(status, indent=1) if given.json else status_text(status, time.time()))


def _reconnect(given: argparse.Namespace) -> None:
    import anyio

    from entrypoint.commands.reconnect import ANY_EXIT, in_colo, loads, reconnect
    from entrypoint.linux.this_machine import open_world
    from entrypoint.settings import load

    settings, world = load(os.environ), open_world()
    wrong = ANY_EXIT
    if given.until_colo:
        wrong = in_colo(given.until_colo)
    elif given.until:
        wrong = loads(given.until, settings, world)
    times = given.times if given.until_colo or given.until else 1
    anyio.run(lambda: reconnect(given.directory, settings, world, wrong, times=times))


def _settings(given: argparse.Namespace) -> None:
    from entrypoint.settings import describe, load

    settings = load(os.environ)
    print("\n".join([*describe(settings), *settings.warnings]))


def _link(given: argparse.Namespace) -> None:
    from entrypoint.client_details import read_keys, saved_public_address, with_generated
    from entrypoint.settings import load
    from shadowsocks.links import entries, link, qr, qr_image, write_for

    settings = load(os.environ)
    saved = read_keys(settings)
    if saved is None:
        raise StateError(f"no keys in {settings.account.state_dir} yet", LOG_HINT)
    found, _ = with_generated(settings, saved)
    wanted = settings.shadowsocks
    host = wanted.public_host or saved_public_address(settings)
    # A link with the container's private address would look right and not work.
    if host is None:
        raise StateError("the server's public address is unknown", "set SHADOWSOCKS_PUBLIC_HOST")
    named = f"ss-warp-{given.user}" if given.user else None
    every = entries(host, wanted.public_port or wanted.port, found, wanted.udp)
    some = [entry for entry in every if named in (None, entry.name)]
    if not some:
        raise UsageError(f"unknown user {given.user}", "the users are named in SHADOWSOCKS_USERS")
    if given.qr in ("png", "svg"):
        if len(some) > 1:
            raise UsageError(f"--qr {given.qr} is for one link", "choose one with --user NAME")
        sys.stdout.buffer.write(qr_image(link(some[0], base64=given.base64), given.qr))
    elif given.client:
        try:
            print(write_for(given.client, some))
        except ValueError as error:
            hint = f"SHADOWSOCKS_METHOD=chacha20-ietf-poly1305 suits {given.client}"
            raise UsageError(str(error), hint) from None
        # On standard error, so that the document itself can be redirected to a file.
        print(f"# {given.client}: {CLIENTS[given.client].use}", file=sys.stderr)
    else:
        for uri in (link(entry, base64=given.base64) for entry in some):
            print(uri)
            if given.qr:
                print(qr(uri))


def _up_to(largest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text, 0)
        if not 0 <= value <= largest:
            raise ValueError
        return value

    return number


def _explain(given: argparse.Namespace) -> None:
    import anyio

    from entrypoint import desired
    from entrypoint.commands.explain import Explanation, Firewall, explain_live
    from entrypoint.linux import state_dir
    from entrypoint.linux.kernel_objects import SSSERVER_UID, Flow
    from entrypoint.linux.netlink import SystemNetlink
    from entrypoint.linux.nft import SystemNft
    from entrypoint.linux.state_dir import NETWORK_FILE
    from entrypoint.routing.plan import OurIds, decode
    from entrypoint.settings import load

    settings = load(os.environ)
    numbers = (*decode(state_dir.read(settings.account.state_dir / NETWORK_FILE)), OurIds())[0]
    try:
        source = ip_address(given.source) if given.source else None
        destination = ip_address(given.destination)
    except ValueError as error:
        raise UsageError(str(error), "usage: ss-warp explain [FROM] TO, both IP addresses") from error
    if any(one and one.version == 6 and one.scope_id for one in (source, destination)):
        raise UsageError("an address with % names an interface", "leave % and the interface out")
    # The kernel keeps a set of rules for each version.
    if source and source.version != destination.version:
        raise UsageError("FROM and TO must be of the same IP version")
    flow = Flow(destination, source, given.mark)
    if given.udp:
        flow = replace(flow, transport="udp", source_port=given.udp)
    if given.ssserver:
        bound = None if settings.tunnel.direct else numbers.device
        flow = replace(flow, device=bound, uid=SSSERVER_UID)

    async def ask() -> Explanation:
        loaded = bool(await SystemNft().listing("inet", "ss_warp"))
        # In the host's network and in proxy mode the firewall leaves other traffic alone.
        own = not desired.on_host(settings) and desired.route_mode(settings) == "full"
        firewall = Firewall(loaded and own, settings.tunnel.direct)
        return await explain_live(SystemNetlink(), numbers, flow, firewall)

    try:
        said = anyio.run(ask)
    except OSError as error:
        raise PlatformError(f"cannot read the routes: {error.strerror}") from error
    print(json.dumps(said.as_json(), indent=1) if given.json else said.as_text())


def _doctor(given: argparse.Namespace) -> int:
    import anyio

    from entrypoint.commands.doctor import report
    from entrypoint.commands.status import read_status
    from entrypoint.linux.this_machine import open_world
    from entrypoint.settings import load

    try:
        status = read_status(given.directory)
    except StateError:  # without a running supervisor the doctor still has enough to check
        status = {}
    return anyio.run(report, load(os.environ), open_world(), status, given.before)


def _account(given: argparse.Namespace) -> None:
    from entrypoint.commands.account import run_account_command

    run_account_command(given)


def _warm() -> int:
    """Import the whole product while the image is built, so that exactly this bytecode ships.

    That of Debian and of all packages would be 25 MB.
    """
    import entrypoint
    import shadowsocks

    for package in (entrypoint, shadowsocks):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    return 0
