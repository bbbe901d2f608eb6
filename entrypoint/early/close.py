"""Load the blocking nftables table before importing anything expensive.

Until it is loaded not even dataclasses, pathlib or typing are imported: they would take longer than
everything else together.
"""

import os
from collections.abc import Callable, Mapping, Sequence

from entrypoint.early.optional import OPTIONAL, attempt, leave_out
from entrypoint.errors import PlatformError, SettingsError
from entrypoint.linux.run import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from entrypoint.early.placement import Placement
    from entrypoint.settings import Settings

type RunProgram = Callable[[Sequence[str], str], str]
"""linux.run.run, or a test's."""

ONLY_IN_INITIAL = "/proc/sys/net/core/dev_weight"
"""Exists in the initial network namespace alone."""

OFF = ("off", "false", "0", "no")
NFT_LOAD = ("nft", "-f", "-")

CLOSED_RULESET = __file__.replace("close.py", "closed.nft")
"""The output of `ruleset(Closed())`; a test compares them."""

REMOVAL_LINES = 4
"""The first lines of that file remove our tables, whether or not they exist."""


class EarlyClose:
    """What was done before the settings were read.

    `closed`: the blocking table is loaded. `existed`: it replaced the table of a previous start.
    """

    __slots__ = ("closed", "existed", "placement")

    def __init__(self, placement: "Placement", closed: bool, existed: bool) -> None:
        self.placement, self.closed, self.existed = placement, closed, existed

    def release(self, run: RunProgram = run) -> None:
        """Undo what this start did and nothing else, because it fails before it began."""
        # Bad settings leave nothing behind, but the table of a predecessor stays: neighbours rely on it.
        if self.closed and not self.existed:
            run(NFT_LOAD, "".join(_closed_ruleset().splitlines(keepends=True)[:REMOVAL_LINES]))


def load_settings_closed(environ: Mapping[str, str], run: RunProgram = run) -> "Settings":
    """Close the firewall, then read the settings; replace `NETWORK=auto` by the detected placement.

    Raises SettingsError for invalid settings, after restoring the firewall.
    """
    # Closed even before the settings are read: a container that crashes on a typo must not leave its
    # neighbours in the clear.
    early = close_firewall(environ, run)
    from entrypoint.settings import load

    try:
        settings = load(environ)
    except SettingsError:
        early.release(run)
        raise
    if settings.routing.network == "auto":
        from dataclasses import replace

        return replace(settings, routing=replace(settings.routing, network=early.placement))
    if settings.routing.network == "own":
        require_own_namespace()  # NETWORK_FILE was not read before
    if settings.routing.network == "host":
        early.release(run)  # NETWORK_FILE was not read before
    return settings


def close_firewall(environ: Mapping[str, str], run: RunProgram = run) -> EarlyClose:
    """Block all outgoing traffic, unless this is the host's namespace or FIREWALL=off.

    NETWORK and FIREWALL are read here in their own simple way, because the settings are not imported
    yet: an invalid value counts as the safe choice, and `settings.load` reports it a moment later.
    Raises PlatformError when nftables refuses.
    """
    where = _placement(environ.get("NETWORK", ""))
    # On a host nothing is closed this early: it would cut off programs that never asked for ss-warp.
    closed = where == "own" and _plain(environ.get("FIREWALL", "")) not in OFF
    existed = closed and _close(run)
    return EarlyClose(where, closed, existed)


def _placement(wanted: str) -> "Placement":
    """Return where ss-warp runs; NETWORK=own, as in compose.yaml, needs no more than one look."""
    if _plain(wanted) == "own":
        require_own_namespace()
        return "own"
    from entrypoint.early.placement import placement

    return placement(_plain(wanted))


def _plain(text: str) -> str:
    """Return the word without the spaces and quotation marks that `settings.load` accepts, too."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text.lower()


def require_own_namespace(only_in_initial: str = ONLY_IN_INITIAL) -> None:
    """Raise PlatformError in the host's network namespace: closing it would end every SSH session.

    compose.yaml says NETWORK=own; adding `network_mode: host` to it is a common mistake.
    """
    if os.path.exists(only_in_initial):  # noqa: PTH110 - pathlib is not light
        raise PlatformError(
            "NETWORK=own, but this is the host's network namespace; nothing was changed",
            "remove network_mode: host, or start from examples/host",
        )


def _close(run: RunProgram) -> bool:
    """Load the blocking table; return whether one existed. Raises PlatformError when nftables refuses."""
    closed = _closed_ruleset()
    try:
        try:
            # `create` fails if the table exists, which tells a first start from a restart in one call.
            run(NFT_LOAD, "create table inet ss_warp\n" + closed)
            return False
        except TimeoutError:
            raise
        except OSError:  # it exists, or the kernel lacks a piece
            return _close_again(closed, run)
    except OSError as error:
        raise PlatformError(f"cannot load the firewall: {error}", "the kernel needs nf_tables") from error


def _close_again(closed: str, run: RunProgram) -> bool:
    try:
        run(NFT_LOAD, closed)
    except TimeoutError:
        raise
    except OSError:
        if not (missing := missing_pieces(run)):
            raise
        run(NFT_LOAD, leave_out(closed, missing))
    return True


def missing_pieces(run: RunProgram) -> "set[str]":
    """Return which optional pieces of nftables the kernel lacks."""
    missing = set()
    for piece, tried, _ in OPTIONAL:
        try:
            run(NFT_LOAD, attempt(piece, tried))
        except TimeoutError:
            raise
        except OSError:
            missing.add(piece)
    return missing if len(missing) < len(OPTIONAL) else set()  # nothing works: say what nft says


def _closed_ruleset() -> str:
    with open(CLOSED_RULESET) as file:  # noqa: PTH123 - pathlib is not light
        return file.read()
