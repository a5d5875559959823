"""Write what is in an image as a CycloneDX 1.6 document: `sbom.py --root FOLDER --name NAME --version VERSION`.

FOLDER is the image's root file system. Listed are Debian's packages, as dpkg notes them, and every Python distribution
with its version and licence; what came another way (nothing does, by the Dockerfile) would be missing.
"""

from __future__ import annotations

import argparse
import email.parser
import email.policy
import importlib.metadata
import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

_LONGEST_LICENSE = 80
"""Some distributions put the whole text where its name belongs."""


def debian_packages(root: Path) -> Iterator[Component]:
    """Installed packages by dpkg's own list; none where there is no dpkg."""
    status = root / "var/lib/dpkg/status"
    if not status.is_file():
        return
    release = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)', (root / "etc/os-release").read_text(), re.MULTILINE))
    distribution, number = release.get("ID", "debian"), release.get("VERSION_ID", "")
    for paragraph in status.read_text(errors="replace").split("\n\n"):
        fields = email.parser.HeaderParser(policy=email.policy.compat32).parsestr(paragraph)
        if not str(fields.get("Status", "")).endswith(" installed"):
            continue
        qualifiers = {"arch": str(fields["Architecture"]), "distro": f"{distribution}-{number}"}
        name, version = str(fields["Package"]), str(fields["Version"])
        purl = PackageURL("deb", distribution, name, version, qualifiers)
        yield Component(name=name, version=version, purl=purl, bom_ref=str(purl))


def python_distributions(root: Path) -> Iterator[Component]:
    """Distributions of every environment in the image, each name and version once."""
    folders = sorted({*root.glob("opt/**/site-packages"), *root.glob("usr/lib/python3*/dist-packages")})
    licenses = LicenseFactory()
    known = set()
    for distribution in importlib.metadata.distributions(path=[str(folder) for folder in folders]):
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        purl = PackageURL("pypi", None, name, distribution.version)
        if purl in known:
            continue
        known.add(purl)
        said = _license(distribution.metadata)
        yield Component(
            name=name,
            version=distribution.version,
            purl=purl,
            bom_ref=str(purl),
            licenses=[licenses.make_from_string(said)] if said else [],
        )


def _license(metadata: importlib.metadata.PackageMetadata) -> str:
    """Expression, name, or the last part of a classifier; empty where none is given."""
    for field in ("License-Expression", "License"):
        said = str(metadata.get(field) or "").strip()  # type: ignore[attr-defined]
        if said and said != "UNKNOWN" and len(said) <= _LONGEST_LICENSE and "\n" not in said:
            return said
    classifiers = [item for item in metadata.get_all("Classifier") or [] if item.startswith("License ::")]
    return classifiers[0].rpartition(" :: ")[2] if classifiers else ""


def bill(root: Path, name: str, version: str) -> str:
    """The document. Equal content gives equal text but for its time, which is that of the list of packages."""
    image = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref=f"{name}@{version}")
    components = [*debian_packages(root), *python_distributions(root)]
    bom = Bom(components=components, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{name}@{version}"))
    bom.metadata.component = image
    newest = max((path.stat().st_mtime for path in root.glob("opt/*/lib/*/site-packages")), default=0.0)
    bom.metadata.timestamp = datetime.fromtimestamp(newest, UTC)
    bom.register_dependency(image, components)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        raise ValueError(f"{name}: not valid CycloneDX: {error}")
    return text


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="root folder of the image")
    parser.add_argument("--name", required=True, help="name of the image")
    parser.add_argument("--version", required=True, help="digest or tag of the image")
    chosen = parser.parse_args()
    sys.stdout.write(bill(chosen.root, chosen.name, chosen.version) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
