"""Package and publish: the artifact's folder, then the store; the manifest last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import EngineDescription
from enginewright_api.identity import canonical_json, digest_of
from enginewright_api.manifest import Evidence, Manifest, RuntimeRequirement, artifact_prefix
from enginewright_api.outcome import ArtifactReference, StageReport
from enginewright_api.recipe import BuildRequest
from enginewright_builder.provenance import Material, statement
from enginewright_builder.report.facts import ReportFacts, told_by
from enginewright_builder.report.html import render_report
from enginewright_builder.stages.stage import Output
from enginewright_store.artifact import (
    Published,
    describe_files,
    file_path,
    publish,
    read_manifest,
    read_signature,
    write_evidence,
)
from enginewright_store.signing import SigningKey
from enginewright_store.store import Store


@dataclass(frozen=True, slots=True)
class Package:
    """Engine and report in one folder, laid out as the artifact's files/."""

    request: BuildRequest
    description: EngineDescription
    source: Output
    materials: tuple[Material, ...]
    """All that the engine's bytes follow from, the source among it."""
    engine: Output
    evidence: Evidence
    stages: tuple[StageReport, ...]
    results: Mapping[str, Mapping[str, object]]
    """What each stage told, for the report."""
    started: datetime
    name: str = "package"
    shared: bool = False

    def key(self) -> str:
        """Evidence is measured anew by every run, so this never matches an older result unless all of it does."""
        return digest_of({"stage": self.name, "engine": self.engine.key, "evidence": self.evidence.wire()})

    def run(self, into: Path) -> dict[str, Any]:
        """Files of the artifact. Result: manifest (on the wire)."""
        for path in sorted(self.engine.folder.rglob("*")):
            if path.is_file():
                target = into / path.relative_to(self.engine.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(path)
        now = datetime.now(UTC)
        facts = ReportFacts(
            request=self.request,
            description=self.description,
            source_digest=str(self.source.result["sourceDigest"]),
            parameters=int(self.source.result["parameters"]),
            materials=self.materials,
            evidence=self.evidence,
            stages=self.stages,
            results=told_by(self.results),
            created=_rfc3339(now),
        )
        (into / "report.json").write_bytes(canonical_json(facts.wire()))
        (into / "report.html").write_text(render_report(facts), encoding="utf-8")
        files = describe_files(into)
        manifest = Manifest(
            key=self.request.key,
            recipe=self.request.recipe,
            source_digest=facts.source_digest,
            toolchain=self.request.toolchain,
            accelerator=self.request.accelerator,
            runtime=RuntimeRequirement(
                backend=self.description.backend.value,
                package=self.description.runtime_package,
                version=self.description.runtime_version,
            ),
            files=files,
            evidence=self.evidence,
            provenance=statement(
                self.request, self.materials, files, started=_rfc3339(self.started), finished=_rfc3339(now)
            ),
            created=facts.created,
        )
        return {"manifest": manifest.wire(), "message": f"{len(files)} files, {manifest.size_bytes / 2**20:.1f} MiB"}


@dataclass(frozen=True, slots=True)
class Publish:
    """Into the store. Whoever loses a race gets the winner's artifact, which is as good: same key, same engine."""

    package: Output
    store: Store
    signing_key: SigningKey | None
    name: str = "publish"
    shared: bool = False

    def key(self) -> str:
        """Always done: the store decides whether there is anything to do."""
        return digest_of({"stage": self.name, "package": self.package.key, "store": self.store.uri, "at": _now()})

    def run(self, into: Path) -> dict[str, Any]:
        """Result: artifact (ArtifactReference), evidence (what is published), both on the wire."""
        manifest = Manifest.model_validate(self.package.result["manifest"])
        found = publish(self.store, manifest, self.package.folder, signing_key=self.signing_key)
        evidence = manifest.evidence
        if found.manifest.evidence.request_digest == evidence.request_digest:
            evidence = found.manifest.evidence
        elif not found.ours:
            write_evidence(self.store, manifest.key, evidence)
        return {
            "artifact": reference(self.store, found).wire(),
            "evidence": evidence.wire(),
            "message": found.uri if found.ours else f"{found.uri} was published by another build meanwhile",
        }


@dataclass(frozen=True, slots=True)
class Restore:
    """The engine of an artifact that is published already, to measure it for another evidence request."""

    published: Published
    store: Store
    name: str = "restore"
    shared: bool = False

    def key(self) -> str:
        """By artifact."""
        return digest_of({"stage": self.name, "artifact": self.published.digest})

    def run(self, into: Path) -> dict[str, Any]:
        """Engine folder, every file checked against the manifest."""
        wanted = [file for file in self.published.manifest.files if not file.path.startswith("report.")]
        for file in wanted:
            target = into / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            self.store.download(
                file_path(self.published.manifest.key, file), target, size=file.size, sha256=file.sha256
            )
        return {"message": f"engine of {self.published.uri}"}


def find_published(store: Store, key: str) -> Published | None:
    """The artifact under a key, when there is one."""
    found = read_manifest(store, key)
    return None if found is None else Published(found[0], found[1], f"{store.uri}/{artifact_prefix(key)}", ours=False)


def reference(store: Store, found: Published) -> ArtifactReference:
    """How others refer to it; `signature` is the key that the signature names."""
    bundle = read_signature(store, found.manifest.key, found.digest)
    signer = ""
    if bundle is not None:
        signer = str(json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"])
    return ArtifactReference(uri=found.uri, digest=found.digest, size_bytes=found.manifest.size_bytes, signature=signer)


def _now() -> str:
    return _rfc3339(datetime.now(UTC))


def _rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
