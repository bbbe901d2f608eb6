"""`docker save` becomes an OCI archive whose every digest is that of what it names."""

import gzip
import hashlib
import io
import json
import tarfile
from typing import Any

import pytest

from release.oci import Saved, archive, compressed, saved

LAYERS = (b"first layer", b"second layer")


def config(architecture: str) -> bytes:
    return json.dumps({"architecture": architecture, "os": "linux", "rootfs": {}}).encode()


def save(architecture: str) -> io.BytesIO:
    """What `docker save` writes: the last layer is the first one again, so it is a link."""
    stream = io.BytesIO()
    manifest = [
        {"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}
    ]
    files = {"c.json": config(architecture), "a/layer.tar": LAYERS[0], "b/layer.tar": LAYERS[1]}
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("c/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        tar.addfile(link)
    stream.seek(0)
    return stream


def opened(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def test_a_saved_image_is_read_links_included() -> None:
    assert saved(save("amd64")) == Saved(config("amd64"), (*LAYERS, LAYERS[0]))


def test_every_blob_is_what_its_name_says_and_is_named() -> None:
    files = opened(archive((saved(save("amd64")), saved(save("arm64"))), "0.1.0"))
    blobs = {name: content for name, content in files.items() if name.startswith("blobs/")}
    for name, content in blobs.items():
        assert name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}

    seen = set[str]()

    def follow(descriptor: dict[str, Any]) -> Any:
        name = f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"
        seen.add(name)
        assert descriptor["size"] == len(files[name])
        return files[name]

    [outer] = json.loads(files["index.json"])["manifests"]
    assert outer["annotations"] == {"org.opencontainers.image.ref.name": "0.1.0"}
    manifests = json.loads(follow(outer))["manifests"]
    assert [one["platform"]["architecture"] for one in manifests] == ["amd64", "arm64"]
    for one in manifests:
        manifest = json.loads(follow(one))
        assert json.loads(follow(manifest["config"]))["architecture"] == one["platform"]["architecture"]
        assert [gzip.decompress(follow(layer)) for layer in manifest["layers"]] == [*LAYERS, LAYERS[0]]
    assert seen == set(blobs)


def test_the_same_images_make_the_same_archive() -> None:
    assert archive((saved(save("amd64")),), "1") == archive((saved(save("amd64")),), "1")


def test_a_layer_that_is_compressed_stays_as_it_is() -> None:
    once = compressed(b"layer")
    assert compressed(once) == once


def test_a_processor_may_occur_once() -> None:
    with pytest.raises(ValueError, match="once"):
        archive((saved(save("amd64")), saved(save("amd64"))), "1")
