"""Closed first: the blocking table is loaded before anything big is imported.

Until then not even dataclasses, pathlib or typing: they would take longer than everything else together.
"""

from collections.abc import Callable, Mapping, Sequence

from entrypoint.errors import PlatformError, SettingsError
from entrypoint.process import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from entrypoint.early import Early
    from entrypoint.network.placement import Placement
    from entrypoint.settings import Settings

type Run = Callable[[Sequence[str], str], str]
"""process.run, or a test's."""

OFF = ("off", "false", "0", "no")

LOAD = ("nft", "-f", "-")

CLOSED = __file__.replace("closing.py", "network/closed.nft")
"""What `ruleset(Closed())` says; a test compares."""


def settings_behind_it(environ: Mapping[str, str], run: Run = run) -> "Settings":
    """Close, then read the settings; wrong ones leave everything as it was. Raises SettingsError.

    In them `NETWORK=auto` is replaced by what was found.
    """
    early = close_first(environ, run)
    from entrypoint.settings import load

    try:
        settings = load(environ)
    except SettingsError:
        early.release(run)
        raise
    if settings.routing.network == "auto":
        routing = settings.routing.model_copy(update={"network": early.placement})
        return settings.model_copy(update={"routing": routing})
    if settings.routing.network == "host":
        early.release(run)  # NETWORK_FILE is only known by now
    return settings


def close_first(environ: Mapping[str, str], run: Run = run) -> "Early":
    """Block everything that would leave in clear, unless the host is where we are or FIREWALL=off.

    Wrong values are treated as the safe choice here and reported by the settings a moment later.
    Raises PlatformError when nftables refuses.
    """
    where = _placement(environ.get("NETWORK", ""))
    closed = where == "own" and environ.get("FIREWALL", "").strip().lower() not in OFF
    adopted = closed and _close(run)
    from entrypoint.early import Early

    return Early(where, closed, adopted)


def _placement(wanted: str) -> "Placement":
    """Return where we are; what compose.yaml says needs no looking, and nothing imported."""
    if wanted.strip().lower() == "own":
        return "own"
    from entrypoint.network.placement import placement

    return placement(wanted)


def _close(run: Run) -> bool:
    """Load the blocking table; say whether one was there. Raises PlatformError when nftables refuses."""
    with open(CLOSED) as file:  # noqa: PTH123 - pathlib is not light
        closed = file.read()
    try:
        try:
            run(LOAD, "create table inet ss_warp\n" + closed)
            return False
        except TimeoutError:
            raise
        except OSError:  # it is there
            run(LOAD, closed)
            return True
    except OSError as error:
        raise PlatformError(f"cannot load the firewall: {error}", "the kernel needs nf_tables") from error
