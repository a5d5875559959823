"""Air-gap bundles: what goes in comes out, checked; other tools read them too."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_store import Store, open_store
from enginewright_store.artifact import file_path, read_manifest, read_signature, verify_signature
from enginewright_store.bundle import LayoutReader, LayoutWriter, add_artifact, add_chart, install_artifacts
from enginewright_store.signing import generate_key
from tests.required import cannot_run
from tests.serving.artifacts import KEY, published


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "openvino.bin").write_bytes(b"weights" * 1000)
    (folder / "engine.json").write_text(
        '{"task":"Embedding","backend":"OpenVINO","limits":{},"runtimePackage":"openvino","runtimeVersion":"1"}'
    )
    return folder


def stores(tmp_path: Path) -> tuple[Store, Store]:
    return open_store((tmp_path / "here").as_uri()), open_store((tmp_path / "there").as_uri())


def test_a_signed_artifact_travels(tmp_path: Path, engine: Path) -> None:
    here, there = stores(tmp_path)
    signer = generate_key(tmp_path / "key.pem")
    published(here, engine, signer)
    here.put(f"evidence/{KEY}/{'1' * 64}.json", b"{}")
    with LayoutWriter(tmp_path / "bundle.tar") as bundle:
        add_artifact(bundle, here, KEY)
    shutil.rmtree(tmp_path / "here")
    with LayoutReader(tmp_path / "bundle.tar") as bundle:
        assert install_artifacts(bundle, there) == [KEY]
        assert install_artifacts(bundle, there) == [KEY], "once more changes nothing"
    found = read_manifest(there, KEY)
    assert found is not None
    manifest, digest = found
    assert verify_signature(read_signature(there, KEY, digest), manifest, digest, [signer.public])
    for file in manifest.files:
        there.download(file_path(KEY, file), tmp_path / "out", size=file.size, sha256=file.sha256)
    assert there.exists(f"evidence/{KEY}/{'1' * 64}.json")


def changed(source: Path, target: Path, change) -> None:  # type: ignore[no-untyped-def]
    """A copy of the archive with each member's content changed or left out."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for item in old.getmembers():
            data = change(item.name, old.extractfile(item).read())  # type: ignore[union-attr]
            if data is not None:
                item.size = len(data)
                new.addfile(item, io.BytesIO(data))


@pytest.mark.parametrize("damage", ["altered", "missing", "no index"])
def test_a_damaged_bundle_publishes_nothing(tmp_path: Path, engine: Path, damage: str) -> None:
    here, there = stores(tmp_path)
    published(here, engine)
    with LayoutWriter(tmp_path / "good.tar") as bundle:
        add_artifact(bundle, here, KEY)

    def change(name: str, data: bytes) -> bytes | None:
        if damage == "no index":
            return None if name == "index.json" else data
        if data.startswith(b"weights"):
            return None if damage == "missing" else b"spoiled" * 1000
        return data

    changed(tmp_path / "good.tar", tmp_path / "bad.tar", change)
    with pytest.raises(DeterministicError) as caught, LayoutReader(tmp_path / "bad.tar") as bundle:
        install_artifacts(bundle, there)
    assert caught.value.reason == "InvalidBundle"
    assert read_manifest(there, KEY) is None


def test_a_bundle_writes_only_below_its_own_keys(tmp_path: Path, engine: Path) -> None:
    """Titles of layers are somebody's claim: those that lead elsewhere are left out."""
    here, there = stores(tmp_path)
    published(here, engine)
    with LayoutWriter(tmp_path / "good.tar") as bundle:
        add_artifact(bundle, here, KEY)
        evil = [bundle.blob(b"x", "application/octet-stream", **{"org.opencontainers.image.title": "../../evil"})]
        bundle.artifact("evil", "application/vnd.enginewright.artifact.v1", evil, None)
    with LayoutReader(tmp_path / "good.tar") as archive, pytest.raises(DeterministicError):
        install_artifacts(archive, there)
    assert not (tmp_path.parent / "evil").exists()
    assert all(KEY in path for path in there.list())


def test_the_command_bundles_artifacts_chart_and_images(tmp_path: Path, engine: Path) -> None:
    here, there = stores(tmp_path)
    published(here, engine)
    chart = tmp_path / "chart.tgz"
    with tarfile.open(chart, "w:gz") as archive:
        content = b"apiVersion: v2\nname: enginewright\nversion: 0.1.0\n"
        entry = tarfile.TarInfo("enginewright/Chart.yaml")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    with LayoutWriter(tmp_path / "image.tar") as image:  # stands for an archive of skopeo
        image.artifact("control:1", "image", [image.blob(b"layer", "application/vnd.oci.image.layer.v1.tar")], None)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "enginewright_cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    file = str(tmp_path / "all.tar")
    done = run(
        "bundle", "--output-file", file, "--store", here.uri, "--key", KEY[:8], "--chart", str(chart),
        "--image", str(tmp_path / "image.tar"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with LayoutReader(Path(file)) as bundle:
        names = [item["annotations"]["org.opencontainers.image.ref.name"] for item in bundle.manifests]
        digests = [item["digest"] for item in bundle.manifests]
    assert names == [f"artifacts/{KEY}", "charts/enginewright:0.1.0", "control:1"]
    told = [f"chart {names[1]} {digests[1]}", f"image {names[2]} {digests[2]}"]
    assert done.stdout.splitlines()[1:3] == told
    done = run("unbundle", file, "--store", there.uri)
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"artifact {KEY}", *told])
    assert read_manifest(there, KEY) is not None
    assert run("bundle", "--output-file", file, "--store", here.uri, "--key", "ffff").returncode == 1


def test_images_go_through_and_other_tools_take_them_out(tmp_path: Path, engine: Path) -> None:
    """An image of buildah, bundled beside an artifact, pulled again by buildah from the bundle."""
    if shutil.which("buildah") is None:
        cannot_run("no buildah: run make system-deps")
    here, _ = stores(tmp_path)
    published(here, engine)

    def buildah(*arguments: str, root: str = "one") -> str:
        storage = ("--storage-driver=vfs", f"--root={tmp_path / root}", f"--runroot={tmp_path / root}-run")
        done = subprocess.run(
            ["buildah", *storage, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        if "permitted" in done.stderr or "user namespace" in done.stderr:
            pytest.skip(f"buildah cannot work here: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    container = buildah("from", "scratch")
    buildah("copy", container, str(engine / "engine.json"), "/engine.json")
    buildah("commit", "--quiet", container, f"oci-archive:{tmp_path / 'image.tar'}:example.org/control:1")
    with LayoutWriter(tmp_path / "bundle.tar") as bundle:
        add_artifact(bundle, here, KEY)
        assert bundle.merge(tmp_path / "image.tar") == ["example.org/control:1"]
    identity = buildah("pull", "--quiet", f"oci-archive:{tmp_path / 'bundle.tar'}:example.org/control:1", root="two")
    assert identity in buildah("images", "--no-trunc", "--quiet", root="two")


def test_what_is_no_chart_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(b"no")
    with LayoutWriter(tmp_path / "bundle.tar") as bundle, pytest.raises(DeterministicError, match="helm package"):
        add_chart(bundle, tmp_path / "x.tgz")
