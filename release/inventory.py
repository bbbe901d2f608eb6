"""Run inside the shipped image by its own Python: print what it is made of, as JSON, licence texts included.

Standard library only; nothing of the project is imported, since this file comes in by standard input.
"""

import gzip
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

CRATES = Path("/usr/share/ss-warp")


def debian() -> list[dict[str, str]]:
    """Return the installed Debian packages, with their copyright files where the base image keeps them."""
    form = "${Package}\t${Version}\t${Architecture}\n"
    listed = subprocess.run(
        ["/usr/bin/dpkg-query", "--show", f"--showformat={form}"], capture_output=True, text=True, check=True
    ).stdout
    found = []
    for line in listed.splitlines():
        name, version, architecture = line.split("\t")
        copyright_file = Path("/usr/share/doc", name, "copyright")
        text = copyright_file.read_text(errors="replace") if copyright_file.exists() else ""
        found.append(
            {"kind": "deb", "name": name, "version": version, "architecture": architecture, "text": text}
        )
    return found


def python() -> list[dict[str, str]]:
    """Return the Python packages with the licence that their metadata names."""
    found = []
    for one in importlib.metadata.distributions():
        about = one.metadata
        classified = [
            value.rpartition(" :: ")[2]
            for value in about.get_all("Classifier", [])
            if value.startswith("License ::")
        ]
        licence = about.get("License-Expression") or about.get("License") or " AND ".join(classified)
        files = [
            file for file in one.files or [] if re.search(r"dist-info/.*(LICEN[CS]E|COPYING)", str(file))
        ]
        texts = [Path(str(file.locate())).read_text(errors="replace") for file in files]
        found.append(
            {
                "kind": "pypi",
                "name": about["Name"],
                "version": one.version,
                "licence": licence.splitlines()[0] if licence else "",
                "text": "\n".join(texts),
            }
        )
    return found


def crates() -> list[dict[str, str]]:
    """Return the Rust crates that the programs were built from: lines `name vVERSION …|LICENCE`."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for file in sorted(CRATES.glob("*.crates")):
        for line in file.read_text().splitlines():
            name, version = line.split()[:2]
            licence = line.rpartition("|")[2]
            part = {"kind": "cargo", "name": name, "version": version[1:], "licence": licence, "text": ""}
            found[name, version] = part
    return list(found.values())


def main() -> None:
    texts = {
        file.name: gzip.decompress(file.read_bytes()).decode(errors="replace")
        for file in sorted(CRATES.glob("*.licences.gz"))
    }
    json.dump({"parts": [*debian(), *python(), *crates()], "texts": texts}, sys.stdout)


if __name__ == "__main__":
    main()
