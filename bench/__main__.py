"""`make bench`: measure the chosen groups, merge them into what is known, print both files as tar."""

import argparse
import compileall
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import entrypoint
from bench.engines import engines
from bench.figures import FIGURES
from bench.groups import held, idle, limited, small, throughput
from bench.picture import drawings
from bench.report import table, written
from bench.samples import Group
from bench.singbox import program
from bench.starts import start

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = Path("docs/benchmarks.md"), Path("bench/results.json")
GROUPS: dict[str, Group] = {
    "throughput": throughput,
    "limited": limited,
    "engine": engines,
    "small": small,
    "held": held,
    "start": start,
    "idle": idle,
}


def main() -> None:
    """Do what the arguments say; progress on standard error."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"groups, comma-separated, of {', '.join(FIGURES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args()
    results, failed = json.loads((ROOT / RESULTS).read_text()), []
    for package in ("entrypoint", "shadowsocks"):
        compileall.compile_dir(ROOT / package, quiet=1)  # as in the image that ships
    # Whatever ends it, what was measured until then is not lost.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for group in options.only.split(",") if options.only else GROUPS:
            try:
                results[group] = measured(group, options.rounds, options.seconds)
            except Exception:
                failed.append(group)  # the others are worth having
                traceback.print_exc()
            else:
                print(table(group, results[group]), file=sys.stderr)
    finally:
        page = written((ROOT / PAGE).read_text(), results)
        archive({PAGE: page, RESULTS: json.dumps(results, indent=1) + "\n", **drawings(results)})
    if failed:
        sys.exit(f"cannot measure {', '.join(failed)}; their earlier figures stay")


def measured(group: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure a group; return its samples and their circumstances."""
    print(f"measuring {group}", file=sys.stderr)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as directory:
        samples = GROUPS[group](Path(directory), rounds, seconds)
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "load": [before, os.getloadavg()[0]],
        "versions": versions(),
        "command": f"make bench ONLY={group} ROUNDS={rounds} SECONDS={seconds:g}",
        "rounds": rounds,
        "samples": {
            figure: {name: [round(one, 4) for one in values] for name, values in found.items()}
            for figure, found in samples.items()
        },
    }


def machine() -> str:
    """Return processor, cores and kernel."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "processor")
    return f"{os.cpu_count()} × {model} ({platform.machine()}), Linux {platform.release()}"


def versions() -> dict[str, str]:
    """Return what was measured."""

    def says(*argv: str) -> str:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split("\n")[0]

    return {
        "ss-warp": f"{entrypoint.__version__} ({os.environ.get('COMMIT') or 'uncommitted'})",
        "shadowsocks-rust": says("ssserver", "--version").split()[-1],
        "engine": " ".join(says("ss-warp-wireguard", "--version").split()[1:]),
        "wireguard-go": says("wireguard-go", "--version").split()[1],
        "sing-box": says(str(program()), "version").split()[-1],
        "Python": platform.python_version(),
    }


def archive(files: Mapping[Path, str]) -> None:
    """Print these files as a tar archive."""
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(str(path))
            content = text.encode()
            entry.size, entry.mode = len(content), 0o644
            entry.mtime = int(datetime.now(UTC).timestamp())
            tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
