"""Turn saved images and their inventory into the files of a release.

Standard input is a tar of `image-ARCH.tar` (from `docker save`) and `parts.json` (from release/inventory.py);
standard output a tar of what goes into dist/.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from entrypoint import __version__
from release.bill import bill_of_materials, licence_page, notes
from release.oci import archive, saved, tarred

ROOT = Path(__file__).parents[1]


def files_of_a_release(given: Mapping[str, bytes], version: str) -> dict[str, bytes]:
    """Return every file of dist/ by name, checksums last."""
    inventory = json.loads(given["parts.json"])
    images = {
        name.removeprefix("image-").removesuffix(".tar"): content
        for name, content in sorted(given.items())
        if name.startswith("image-")
    }
    opened = tuple(saved(io.BytesIO(content)) for content in images.values())
    digest = hashlib.sha256(opened[0].config).hexdigest()
    bill = bill_of_materials(inventory["parts"], version, digest)
    own = (ROOT / "LICENSE").read_text()
    name = f"ss-warp-{version}"
    files = {
        # `docker load` of every engine reads this; those before 25 do not read an OCI archive.
        **{f"{name}-{arch}.tar.gz": gzip.compress(content, mtime=0) for arch, content in images.items()},
        f"{name}.oci.tar": archive(opened, version),
        f"{name}.cdx.json": json.dumps(bill, indent=1).encode(),
        f"{name}-licences.txt": licence_page(inventory["parts"], inventory["texts"], own).encode(),
        "NOTES.md": notes((ROOT / "CHANGELOG.md").read_text(), version).encode(),
        "compose.yaml": (ROOT / "compose.min.yaml").read_bytes(),
    }
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    return files | {"SHA256SUMS": sums.encode()}


def main() -> None:
    given: dict[str, bytes] = {}
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
        for entry in tar:
            if file := tar.extractfile(entry):
                given[Path(entry.name).name] = file.read()
    sys.stdout.buffer.write(tarred(files_of_a_release(given, __version__)))


if __name__ == "__main__":
    main()
