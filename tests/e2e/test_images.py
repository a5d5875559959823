"""The images as they were built: what they say they are, what they hold, what a node pulls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.installation import ROOT

IMAGES = ("control", "serving", "builder")
PROGRAM = {"control": "kubernetes", "serving": "nvidia-pytriton", "builder": "torch"}
"""A distribution that an image cannot do without."""

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("e2e"), pytest.mark.usefixtures("images")]


def buildah(command: str) -> str:
    """What a line of shell prints in which `store` is buildah with the images of images/build.sh."""
    script = f'. "{ROOT}/images/lib.sh"; exec 9>"$CACHE/lock"; flock 9; {command}'
    return subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout


def listed(image: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Debian packages and Python distributions as the image's own programs list them, name and version."""
    python = "/opt/enginewright/bin/python"
    ask = "import importlib.metadata as m; print(*{f'{d.name} {d.version}' for d in m.distributions()}, sep='\\n')"
    printed = buildah(
        f"container=$(store from --pull-never localhost/enginewright-{image}:dev);"
        " trap 'store rm $container >/dev/null' EXIT;"
        " store run $container -- dpkg-query --show --showformat '${Package} ${Version} ${db:Status-Status}\\n';"
        f' echo --; store run $container -- {python} -I -c "{ask}"'
    )
    debian, _, distributions = printed.partition("--\n")
    installed = [line.split() for line in debian.splitlines()]
    names = [line.split() for line in distributions.splitlines()]
    return (
        {(name, version) for name, version, status in installed if status == "installed"},
        {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in names},
    )


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What images/sbom.sh writes of each."""
    folder = tmp_path_factory.mktemp("sbom")
    subprocess.run([str(ROOT / "images/sbom.sh"), str(folder), sys.executable, *IMAGES], check=True, env=os.environ)
    return {image: json.loads((folder / f"enginewright-{image}.cdx.json").read_text()) for image in IMAGES}


@pytest.mark.parametrize("image", IMAGES)
def test_the_bill_is_what_the_image_itself_lists(bills: dict[str, dict[str, Any]], image: str) -> None:
    debian, distributions = listed(image)
    assert len(debian) > 50
    assert PROGRAM[image] in {name for name, _ in distributions}
    found: dict[str, set[tuple[str, str]]] = {"deb": set(), "pypi": set()}
    for component in bills[image]["components"]:
        kind = component["purl"].removeprefix("pkg:").partition("/")[0]
        found[kind].add((component["name"], component["version"]))
    assert found["deb"] == debian
    # Environments of toolchains are in the bill too, and not seen by the image's main Python.
    assert found["pypi"] >= distributions
    assert len(found["pypi"] - distributions) == 0 or image == "builder"


@pytest.mark.parametrize("image", IMAGES)
def test_the_bill_is_of_that_image(bills: dict[str, dict[str, Any]], image: str) -> None:
    digest = buildah(
        f"store inspect --type image --format '{{{{.FromImageDigest}}}}' localhost/enginewright-{image}:dev"
    )
    component = bills[image]["metadata"]["component"]
    assert (component["name"], component["version"]) == (f"enginewright-{image}", digest.strip())


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_says_what_it_is(image: str) -> None:
    inspected = json.loads(buildah(f"store inspect --type image localhost/enginewright-{image}:dev"))
    labels = inspected["OCIv1"]["config"]["Labels"]
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert {"title", "description", "licenses", "version"} <= said.keys()
    assert said["version"] == "0.1.0"
    assert "created" not in said


def test_the_control_image_is_small_enough_to_pull() -> None:
    """The bar stands in images/sizes.sh, which fails beyond it."""
    done = subprocess.run([str(ROOT / "images/sizes.sh"), "control"], capture_output=True, text=True, check=False)
    print(done.stdout)  # noqa: T201 - the figure of this run
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("control: ")
