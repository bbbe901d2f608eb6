"""`docker save` → an OCI archive with one index for several processors.

The form is that of OCI image-spec 1.0: blobs named by their SHA-256, a manifest per image, an index.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Saved:
    """One image of a `docker save` archive: its configuration as it was written, and its layers."""

    config: bytes
    layers: tuple[bytes, ...]

    @property
    def platform(self) -> dict[str, str]:
        about = json.loads(self.config)
        return {"architecture": about["architecture"], "os": about["os"]}


def saved(archive: IO[bytes]) -> Saved:
    """Read the one image of an archive; a layer that stands twice is a symbolic link the second time."""
    with tarfile.open(fileobj=archive) as tar:

        def content(name: str) -> bytes:
            file = tar.extractfile(name)
            if file is None:
                raise ValueError(f"cannot read {name}: it is no file")
            return file.read()

        [manifest] = json.loads(content("manifest.json"))
        return Saved(content(manifest["Config"]), tuple(content(name) for name in manifest["Layers"]))


def compressed(layer: bytes) -> bytes:
    """Return a layer gzipped without a time stamp, so that the same layer always has the same digest."""
    return layer if layer.startswith(b"\x1f\x8b") else gzip.compress(layer, mtime=0)


def archive(images: tuple[Saved, ...], tag: str) -> bytes:
    """Return the OCI archive of one image for several processors; ValueError if one occurs twice."""
    platforms = [one.platform["architecture"] for one in images]
    if len({*platforms}) != len(platforms):
        raise ValueError(f"cannot put {platforms} into one index: each processor may occur once")
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def manifest(image: Saved) -> dict[str, Any]:
        content = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blob(image.config, CONFIG),
            "layers": [blob(compressed(layer), LAYER) for layer in image.layers],
        }
        return blob(json.dumps(content).encode(), MANIFEST) | {"platform": image.platform}

    inner = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest(one) for one in images]}
    named = blob(json.dumps(inner).encode(), INDEX) | {
        "annotations": {"org.opencontainers.image.ref.name": tag}
    }
    outer = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(outer).encode()}
    return tarred(files | blobs)


def tarred(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of the files in this order, without times or owners."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()
