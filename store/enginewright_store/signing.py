"""Signatures in the format of OpenSSF Model Signing 1.0: a Sigstore bundle (v0.3) with a DSSE envelope around an
in-toto statement, signed with an elliptic-curve key.

Written directly on `cryptography`: the reference package loads Sigstore's whole client (0.8 s), which a pod that admits
an engine need not wait for. The tests check both directions against the reference package.
Sources: https://docs.sigstore.dev/about/bundle, https://github.com/secure-systems-lab/dsse (protocol.md),
https://github.com/sigstore/model-transparency (predicate model_signing/signature/v1.0).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enginewright_api.errors import DeterministicError

_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_PUBLIC_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with. `identity` is the sha256 of its PEM, as bundles hint it."""

    identity: str
    key: ec.EllipticCurvePublicKey

    @classmethod
    def load(cls, file: Path) -> PublicKey:
        """From a PEM file with a public (or a private) EC key."""
        data = _read_key(file)
        try:
            if b"PRIVATE KEY" in data:
                return SigningKey.load(file).public
            key = serialization.load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise DeterministicError("InvalidKey", f"{file}: not a PEM public key ({error})") from error
        return cls.of(key, file)

    @classmethod
    def load_all(cls, file: Path) -> list[PublicKey]:
        """Every public key of a PEM file, in order: those of each place whose engines are trusted."""
        data = _read_key(file)
        blocks = _PUBLIC_BLOCK.findall(data)
        if len(blocks) != data.count(b"BEGIN PUBLIC KEY"):
            raise DeterministicError("InvalidKey", f"{file}: a public key in it has no end; write it anew")
        if not blocks:
            return [cls.load(file)]
        try:
            return [cls.of(serialization.load_pem_public_key(block), file) for block in blocks]
        except (ValueError, UnsupportedAlgorithm) as error:
            raise DeterministicError("InvalidKey", f"{file}: not PEM public keys ({error})") from error

    @classmethod
    def of(cls, key: object, where: Path) -> PublicKey:
        """Refuses keys other than NIST EC keys."""
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
            raise DeterministicError("InvalidKey", f"{where}: must be an EC key on P-256, P-384 or P-521")
        return cls(hashlib.sha256(_public_pem(key)).hexdigest(), key)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key."""

    private: ec.EllipticCurvePrivateKey
    public: PublicKey

    @classmethod
    def load(cls, file: Path) -> SigningKey:
        """From an unencrypted PEM file."""
        try:
            key = serialization.load_pem_private_key(_read_key(file), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise DeterministicError("InvalidKey", f"{file}: not an unencrypted PEM private key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise DeterministicError("InvalidKey", f"{file}: must be an EC key on P-256, P-384 or P-521")
        return cls(key, PublicKey.of(key.public_key(), file))


def generate_key(file: Path) -> SigningKey:
    """Make a P-256 key: the private one in `file` (mode 0600), the public one in `<file>.pub`. Never overwrites."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise DeterministicError("KeyExists", f"{file}: exists already; it is not overwritten") from error
    with os.fdopen(handle, "wb") as stream:
        stream.write(pem)
    file.with_name(file.name + ".pub").write_bytes(_public_pem(private.public_key()))
    return SigningKey(private, PublicKey.of(private.public_key(), file))


def sign(contents: Mapping[str, str], key: SigningKey, *, name: str) -> bytes:
    """Bundle (model.sig) over path → sha256 hex of everything in a folder; `name` is for people."""
    # The reference package orders by path component, not by character.
    ordered = sorted(contents.items(), key=lambda item: PurePosixPath(item[0]))
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in ordered)).hexdigest()
    statement = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig"],
            },
            "resources": [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in ordered],
        },
    }
    payload = json.dumps(statement, sort_keys=True).encode()
    signature = key.private.sign(_pre_authentication(payload), ec.ECDSA(_HASHES[key.private.curve.name]))
    bundle = {
        "mediaType": _BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public.identity}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, sort_keys=True).encode()


def verify(bundle: bytes, contents: Mapping[str, str], keys: Iterable[PublicKey]) -> PublicKey:
    """The key that signed exactly `contents` (path → sha256 hex).

    Raises DeterministicError: InvalidSignature (not a bundle, wrong bytes), UntrustedKey (none of `keys`), or
    SignatureMismatch, which names the first differing path.
    """
    hint, payload, signature = _open(bundle)
    # A bundle without a hint (older signers) is tried against every key.
    candidates = [key for key in keys if hint in ("", key.identity)]
    if not candidates:
        raise DeterministicError(
            "UntrustedKey",
            f"model.sig: signed with key {hint[:16]}…, which is none of the keys given; add its public key",
        )
    signer = next((key for key in candidates if _signed_by(key, payload, signature)), None)
    if signer is None:
        raise DeterministicError(
            "InvalidSignature", "model.sig: the signature does not fit its statement; sign it again"
        )
    _compare(_resources(payload), contents)
    return signer


def _open(bundle: bytes) -> tuple[str, bytes, bytes]:
    """Key hint, payload and signature of a bundle."""
    try:
        data = json.loads(bundle)
        envelope = data["dsseEnvelope"]
        if data["mediaType"] != _BUNDLE_TYPE or envelope["payloadType"] != _PAYLOAD_TYPE:
            raise ValueError("another media type or payload type than model signing uses")
        (first,) = envelope["signatures"]
        hint = str(data["verificationMaterial"].get("publicKey", {}).get("hint") or "")
        return hint, base64.b64decode(envelope["payload"], validate=True), base64.b64decode(first["sig"], validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise DeterministicError("InvalidSignature", f"model.sig: not a model-signing bundle ({error})") from error


def _signed_by(key: PublicKey, payload: bytes, signature: bytes) -> bool:
    try:
        key.key.verify(signature, _pre_authentication(payload), ec.ECDSA(_HASHES[key.key.curve.name]))
    except InvalidSignature:
        return False
    return True


def _resources(payload: bytes) -> dict[str, str]:
    """Path → sha256 hex that the signed statement lists."""
    try:
        statement: dict[str, Any] = json.loads(payload)
        if statement["_type"] != _STATEMENT_TYPE or statement["predicateType"] != _PREDICATE_TYPE:
            raise ValueError(f"predicate {statement['predicateType']}")
        resources = statement["predicate"]["resources"]
        if any(resource["algorithm"] != "sha256" for resource in resources):
            raise ValueError("a digest that is not sha256")
        listed = {str(resource["name"]): str(resource["digest"]) for resource in resources}
        if len(listed) != len(resources):
            raise ValueError("a path listed twice")
        return listed
    except (ValueError, KeyError, TypeError) as error:
        raise DeterministicError(
            "InvalidSignature", f"model.sig: its statement is not model signing's ({error})"
        ) from error


def _compare(signed: Mapping[str, str], contents: Mapping[str, str]) -> None:
    for path in sorted(signed.keys() | contents.keys()):
        if signed.get(path) != contents.get(path):
            what = "is not signed" if path not in signed else "is missing" if path not in contents else "differs"
            raise DeterministicError(
                "SignatureMismatch", f"model.sig: {path} {what}; publish and sign the artifact again"
            )


def _pre_authentication(payload: bytes) -> bytes:
    """DSSE's PAE: what is really signed."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def _public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read_key(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DeterministicError("InvalidKey", f"{file}: cannot be read ({error.strerror})") from error
