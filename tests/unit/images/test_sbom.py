"""What an image holds, all of it, as a document that the standard's schema takes."""

from __future__ import annotations

import importlib.metadata
import json
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from images.sbom import bill

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u13
Description: GNU C Library
 shared libraries

Package: vim
Status: deinstall ok config-files
Architecture: amd64
Version: 9.0
"""


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a root with Debian's list and the environment that the tests run in."""
    root = tmp_path_factory.mktemp("root")
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text(STATUS)
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text('NAME="Debian"\nVERSION_ID="12"\nID=debian\n')
    packages = root / "opt/enginewright/lib/python3.11"
    packages.mkdir(parents=True)
    here = Path(sysconfig.get_path("purelib"))
    (packages / "site-packages").mkdir()
    for folder in here.glob("*.dist-info"):
        (packages / "site-packages" / folder.name).symlink_to(folder)
    found: dict[str, Any] = json.loads(bill(root, "enginewright-control", "sha256:12"))
    return found


def test_every_package_is_in_it(listed: dict[str, Any]) -> None:
    purls = {item["purl"] for item in listed["components"]}
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12" in purls
    assert not [purl for purl in purls if "/vim@" in purl], "its settings are left, it is not"
    here = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    versions = {f"{item.metadata['Name'].lower().replace('_', '-').replace('.', '-')}@{item.version}" for item in here}
    assert {purl.removeprefix("pkg:pypi/") for purl in purls if purl.startswith("pkg:pypi/")} == {
        version.replace("+", "%2B") for version in versions
    }


def test_licences_come_along(listed: dict[str, Any]) -> None:
    licensed = {item["name"]: item.get("licenses") for item in listed["components"]}
    assert licensed["pydantic"] == [{"expression": "MIT"}] or licensed["pydantic"] == [{"license": {"id": "MIT"}}]
    pypi = [item for item in listed["components"] if item["purl"].startswith("pkg:pypi/")]
    assert sum("licenses" in item for item in pypi) > 0.9 * len(pypi)


def test_it_says_which_image_it_is_of(listed: dict[str, Any]) -> None:
    image = listed["metadata"]["component"]
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    assert (image["type"], image["name"], image["version"]) == ("container", "enginewright-control", "sha256:12")
    (whole,) = [item for item in listed["dependencies"] if item["ref"] == image["bom-ref"]]
    assert len(whole["dependsOn"]) == len(listed["components"])
