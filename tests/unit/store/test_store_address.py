"""What a store URI, an endpoint and a path may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_store import Credentials, open_store
from enginewright_store.guard import check_host
from enginewright_store.paths import checked


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("ftp://host/x", "InvalidStoreURI"),
        ("/plain/path", "InvalidStoreURI"),
        ("file://otherhost/x", "InvalidStoreURI"),
        ("file:///a/../../etc", "InvalidStoreURI"),
        ("file:///a/%2e%2e/etc", "InvalidStoreURI"),
        ("file:///a?x=1", "InvalidStoreURI"),
        ("s3:///nobucket", "InvalidStoreURI"),
        ("s3://user:secret@bucket/x", "InvalidStoreURI"),
        ("s3://bucket/a/../b", "UnsafePath"),
        ("oci://registry/repo", "FeatureNotAvailable"),
    ],
)
def test_unusable_uris_are_refused(uri: str, reason: str) -> None:
    with pytest.raises(DeterministicError) as caught:
        open_store(uri)
    assert caught.value.reason == reason
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(("scheme", "driver"), [("gs", "gcsfs"), ("az", "adlfs")])
def test_a_missing_driver_is_named(scheme: str, driver: str) -> None:
    pytest.importorskip("fsspec")
    try:
        __import__(driver)
    except ImportError:
        with pytest.raises(DeterministicError, match=driver) as caught:
            open_store(f"{scheme}://bucket/x")
        assert caught.value.reason == "FeatureNotAvailable"
    else:
        pytest.skip(f"{driver} is installed here")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254/",
        "http://[fe80::1]:80",
        "http://metadata.google.internal",
        "http://[::ffff:169.254.169.254]",
        "http://2852039166",  # 169.254.169.254 as a number
        "http://0xa9fea9fe",
        "http://[fd00:ec2::254]",
        "http://100.100.100.200",
    ],
)
def test_metadata_endpoints_are_refused(endpoint: str) -> None:
    with pytest.raises(DeterministicError) as caught:
        open_store("s3://bucket", credentials=Credentials("id", "secret", endpoint_url=endpoint))
    assert caught.value.reason == "ForbiddenAddress"


def test_the_endpoint_variable_is_guarded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://169.254.169.254")
    with pytest.raises(DeterministicError, match="S3 endpoint"):
        open_store("s3://bucket")


def test_a_name_that_resolves_to_a_forbidden_address_is_refused() -> None:
    with pytest.raises(DeterministicError, match=r"rebind\.example"):
        check_host("rebind.example", where="S3 endpoint", resolve=lambda _: ["10.0.0.1", "169.254.169.254"])
    check_host("fine.example", where="S3 endpoint", resolve=lambda _: ["10.0.0.1", "127.0.0.1"])


def test_a_name_that_does_not_resolve_may_later() -> None:
    def fail(_: str) -> list[str]:
        raise OSError("no such host")

    with pytest.raises(TransientError, match=r"nowhere\.example"):
        check_host("nowhere.example", where="S3 endpoint", resolve=fail)


def test_credentials_do_not_print_their_secrets() -> None:
    shown = repr(Credentials("public-id", "top-secret", "session-secret"))
    assert "public-id" in shown
    assert "secret" not in shown.replace("secret_access_key", "")


@pytest.mark.parametrize(
    "path", ["", "/abs", "a/../b", "..", ".", "a//b", "a/", "a\\b", "a\0b", "a\nb", "x" * 1025, "./a", "é" * 600]
)
def test_unsafe_paths_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(DeterministicError) as caught:
        checked(path)
    assert caught.value.reason == "UnsafePath"
    with pytest.raises(DeterministicError):
        open_store(tmp_path.as_uri()).put(path, b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["a", "a/b.c/d-e", "é/ü", "...", "..a"])
def test_ordinary_paths_pass(path: str) -> None:
    assert checked(path) == path
