"""The bill of materials names every part by what scanners know it by."""

import json
import re

import pytest

import entrypoint
from release.bill import bill_of_materials, licence_page, licences, notes, package_url
from tests.unit.docs.pages import read

PARTS = (
    {"kind": "deb", "name": "libstdc++6", "version": "14.2.0-19", "architecture": "amd64", "text": ""},
    {
        "kind": "pypi",
        "name": "Prometheus_Client",
        "version": "0.24",
        "licence": "Apache-2.0",
        "text": "Apache …",
    },
    {"kind": "cargo", "name": "aes", "version": "0.9.2", "licence": "MIT/Apache-2.0", "text": ""},
    {"kind": "golang", "name": "golang.zx2c4.com/wireguard", "version": "1~2", "licence": "MIT", "text": ""},
)


def test_every_part_has_the_name_that_scanners_use() -> None:
    assert [package_url(part) for part in PARTS] == [
        "pkg:deb/debian/libstdc%2B%2B6@14.2.0-19?arch=amd64&distro=debian-13",
        "pkg:pypi/prometheus-client@0.24",
        "pkg:cargo/aes@0.9.2",
        "pkg:golang/golang.zx2c4.com/wireguard@1~2",
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("MIT/Apache-2.0", [{"expression": "MIT OR Apache-2.0"}]),
        ("Apache-2.0 / MIT", [{"expression": "Apache-2.0 OR MIT"}]),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", [{"expression": "(MIT OR Apache-2.0) AND Unicode-3.0"}]),
        ("BSD License", [{"license": {"name": "BSD License"}}]),
        ("", []),
    ],
)
def test_licences_as_cyclonedx_takes_them(written: str, meant: list[object]) -> None:
    assert licences(written) == meant


def test_the_document_has_what_its_format_requires() -> None:
    bill = bill_of_materials(PARTS, "0.1.0", "d1")
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", bill["serialNumber"]
    )
    references = [one["bom-ref"] for one in bill["components"]]
    assert len({*references}) == len(PARTS)
    assert bill["dependencies"] == [{"ref": "ss-warp", "dependsOn": references}]
    assert bill["metadata"]["component"]["version"] == "0.1.0"
    assert json.loads(json.dumps(bill)) == bill


def test_the_serial_number_is_the_images() -> None:
    one, same, other = (bill_of_materials(PARTS, "0.1.0", digest) for digest in ("d1", "d1", "d2"))
    assert one == same
    assert one["serialNumber"] != other["serialNumber"]


def test_the_licence_page_has_every_part_and_every_text() -> None:
    page = licence_page(PARTS, {"ssserver.licences": "ISC …"}, "MIT, ours")
    for part in PARTS:
        assert f"{part['name']} {part['version']}" in page
    for text in ("Apache …", "ISC …", "MIT, ours"):
        assert text in page


def test_the_changelog_has_notes_for_this_version() -> None:
    said = notes(read("CHANGELOG.md"), entrypoint.__version__)
    assert said.startswith("### ")
    assert "\n## " not in said
    with pytest.raises(LookupError):
        notes(read("CHANGELOG.md"), "99.0.0")
