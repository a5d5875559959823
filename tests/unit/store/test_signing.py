"""Signatures, ours and those of the reference implementation (package model-signing)."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_store.signing import PublicKey, SigningKey, generate_key, sign, verify

# Names whose order differs by character and by path component.
FILES = {"manifest.json": b"{}", "files/engine/x.bin": b"\1\2", "files/engine-b": b"", "files/engine.json": b"e"}


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return generate_key(tmp_path / "keys" / "key.pem")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "artifact" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "artifact"


def contents() -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


def test_what_was_signed_verifies_against_any_of_the_keys(key: SigningKey, tmp_path: Path) -> None:
    other = generate_key(tmp_path / "other.pem")
    bundle = sign(contents(), key, name="artifact")
    assert verify(bundle, contents(), [other.public, key.public]).identity == key.public.identity


def test_the_reference_implementation_accepts_ours(key: SigningKey, folder: Path, tmp_path: Path) -> None:
    (folder / "model.sig").write_bytes(sign(contents(), key, name="artifact"))
    script = (
        "import sys, model_signing.verifying as v\n"
        "v.Config().use_elliptic_key_verifier(public_key=sys.argv[1]).verify(sys.argv[2], sys.argv[2] + '/model.sig')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "keys/key.pem.pub"), str(folder)]
    subprocess.run(command, check=True, timeout=60)
    (folder / "files/engine.json").write_bytes(b"changed")
    broken = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert broken.returncode != 0
    assert "files/engine.json" in broken.stderr


def test_ours_accepts_the_reference_implementation(key: SigningKey, folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys, model_signing.signing as s\n"
        "s.Config().use_elliptic_key_signer(private_key=sys.argv[1]).sign(sys.argv[2], sys.argv[2] + '/model.sig')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "keys/key.pem"), str(folder)]
    subprocess.run(command, check=True, timeout=60)
    bundle = (folder / "model.sig").read_bytes()
    assert verify(bundle, contents(), [key.public]) == key.public


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"files/engine.json": "0" * 64}, "files/engine.json differs"),
        ({"files/new": "0" * 64}, "files/new is not signed"),
        ({"manifest.json": None}, "manifest.json is missing"),
    ],
)
def test_other_contents_are_refused_by_name(key: SigningKey, change: dict[str, str | None], says: str) -> None:
    bundle = sign(contents(), key, name="artifact")
    changed = {path: digest for path, digest in (contents() | change).items() if digest is not None}
    with pytest.raises(DeterministicError, match=says) as caught:
        verify(bundle, changed, [key.public])
    assert caught.value.reason == "SignatureMismatch"


def test_an_untrusted_signer_is_refused(key: SigningKey, tmp_path: Path) -> None:
    bundle = sign(contents(), key, name="artifact")
    with pytest.raises(DeterministicError) as caught:
        verify(bundle, contents(), [generate_key(tmp_path / "other.pem").public])
    assert caught.value.reason == "UntrustedKey"


def test_a_forged_hint_does_not_help(key: SigningKey, tmp_path: Path) -> None:
    trusted = generate_key(tmp_path / "trusted.pem").public
    bundle = json.loads(sign(contents(), key, name="artifact"))
    for hint in (trusted.identity, "", None):
        bundle["verificationMaterial"]["publicKey"]["hint"] = hint
        with pytest.raises(DeterministicError) as caught:
            verify(json.dumps(bundle).encode(), contents(), [trusted])
        assert caught.value.reason == "InvalidSignature"


def test_a_changed_statement_is_refused(key: SigningKey) -> None:
    bundle = json.loads(sign(contents(), key, name="artifact"))
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"][0]["digest"] = "0" * 64
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    with pytest.raises(DeterministicError) as caught:
        verify(json.dumps(bundle).encode(), contents(), [key.public])
    assert caught.value.reason == "InvalidSignature"


def _drop(bundle: dict[str, Any], name: str) -> dict[str, Any]:
    return {field: value for field, value in bundle.items() if field != name}


def test_what_is_not_a_bundle_is_refused(key: SigningKey) -> None:
    good = json.loads(sign(contents(), key, name="artifact"))
    broken = [b"", b"[]", b"null", b"\xff", b'{"mediaType": 1}', *(json.dumps(_drop(good, n)).encode() for n in good)]
    good["dsseEnvelope"]["signatures"] = []
    for data in (*broken, json.dumps(good).encode()):
        with pytest.raises(DeterministicError) as caught:
            verify(data, contents(), [key.public])
        assert caught.value.reason == "InvalidSignature"


def test_a_generated_key_is_private_and_never_replaced(tmp_path: Path) -> None:
    generate_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(DeterministicError, match="exists already"):
        generate_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == before
    assert PublicKey.load(tmp_path / "key.pem") == PublicKey.load(tmp_path / "key.pem.pub")


def test_one_file_names_every_key_that_is_trusted(tmp_path: Path) -> None:
    pems = {}
    for name in ("here", "origin"):
        generate_key(tmp_path / name)
        pems[name] = (tmp_path / f"{name}.pub").read_text()
    (tmp_path / "public.pem").write_text(f"{pems['here']}\n# of the other cluster\n{pems['origin'].rstrip()}")
    found = PublicKey.load_all(tmp_path / "public.pem")
    assert found == [PublicKey.load(tmp_path / f"{name}.pub") for name in pems]
    assert PublicKey.load_all(tmp_path / "here") == found[:1], "a private key stands for its public half"
    bundle = sign({"model/x": "0" * 64}, SigningKey.load(tmp_path / "origin"), name="x")
    assert verify(bundle, {"model/x": "0" * 64}, found) == found[1]


@pytest.mark.parametrize("cut", [-30, 60])
def test_a_file_of_keys_that_was_cut_is_refused(tmp_path: Path, cut: int) -> None:
    generate_key(tmp_path / "key")
    pem = (tmp_path / "key.pub").read_text()
    (tmp_path / "public.pem").write_text(pem + pem[:cut])
    with pytest.raises(DeterministicError, match=r"public\.pem") as caught:
        PublicKey.load_all(tmp_path / "public.pem")
    assert caught.value.reason == "InvalidKey"


def test_unusable_keys_are_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    def pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
        return key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    cases = {
        "ed25519": pem(ed25519.Ed25519PrivateKey.generate()),
        "k1": pem(ec.generate_private_key(ec.SECP256K1())),
        "text": b"hello",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DeterministicError, match=name) as caught:
            PublicKey.load(tmp_path / name)
        assert caught.value.reason == "InvalidKey"
    with pytest.raises(DeterministicError, match="absent"):
        PublicKey.load(tmp_path / "absent")
