"""Write the bill of materials (CycloneDX 1.6, JSON) and the licences of all parts, from an inventory."""

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

type Part = Mapping[str, str]


def package_url(part: Part) -> str:
    """Return a part's purl, the name by which scanners look up its known weaknesses."""
    name, version = part["name"], quote(part["version"], safe="")
    match part["kind"]:
        case "deb":
            return f"pkg:deb/debian/{quote(name)}@{version}?arch={part['architecture']}&distro=debian-13"
        case "pypi":
            return f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
        case kind:
            return f"pkg:{kind}/{name}@{version}"


def licences(written: str) -> list[dict[str, Any]]:
    """Return a licence as CycloneDX takes it: an SPDX expression, or a plain name; crates may write `A/B`."""
    expression = re.sub(r"\s*/\s*", " OR ", written.strip())
    if not expression:
        return []
    word = r"\(*[A-Za-z0-9.+-]+\)*"
    spdx = re.fullmatch(rf"{word}(?: (?:AND|OR|WITH) {word})*", expression)
    return [{"expression": expression}] if spdx else [{"license": {"name": expression}}]


def component(part: Part) -> dict[str, Any]:
    reference = package_url(part)
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference,
        "name": part["name"],
        "version": part["version"],
        "purl": reference,
    }
    if named := licences(part.get("licence", "")):
        found["licenses"] = named
    return found


def bill_of_materials(parts: Sequence[Part], version: str, digest: str) -> dict[str, Any]:
    """Return the document; its serial number follows from the digest: the same image, the same number."""
    ordered = sorted(parts, key=lambda part: (part["kind"], part["name"], part["version"]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "ss-warp",
                "name": "ss-warp",
                "version": version,
                "licenses": [{"expression": "MIT"}],
            }
        },
        "components": [component(part) for part in ordered],
        "dependencies": [{"ref": "ss-warp", "dependsOn": [package_url(part) for part in ordered]}],
    }


def licence_page(parts: Sequence[Part], texts: Mapping[str, str], own: str) -> str:
    """Return one text: our own licence, a list of what names which, and the texts that the image holds."""
    named = sorted(
        f"{part['kind']:7} {part['name']} {part['version']}: "
        f"{part.get('licence') or 'see its Debian copyright file'}"
        for part in parts
    )
    found = [f"{part['name']} {part['version']}\n\n{part['text']}" for part in parts if part.get("text")]
    rest = [f"{name}\n\n{text}" for name, text in texts.items()]
    rule = "\n\n" + "=" * 100 + "\n\n"
    return rule.join(["ss-warp\n\n" + own, "\n".join(named), *found, *rest]) + "\n"


def notes(changelog: str, version: str) -> str:
    """Return what the changelog says of a version; raise LookupError if it says nothing."""
    _, heading, rest = changelog.partition(f"\n## [{version}]")
    if not heading:
        raise LookupError(f"CHANGELOG.md has no section [{version}]")
    return rest.partition("\n")[2].partition("\n## [")[0].strip() + "\n"
