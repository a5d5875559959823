"""What an API server's answer means: its status code and `Status` body become an error of the port."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from enginewright_api.errors import DeterministicError, EnginewrightError

from .port import (
    ConflictError,
    FieldConflictError,
    InvalidError,
    Kind,
    NotFoundError,
    OwnedField,
    UnavailableError,
)

FORBIDDEN = "Forbidden"
_DENIED_BY_AUTHORIZATION = re.compile(r'User "[^"]*" cannot \S+ (resource|path)')
_LONGEST_PLAIN_BODY = 300


class GoneError(UnavailableError):
    """410: what was asked for is older than the server remembers; the asker has to list again."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is about, for paths, metrics and messages."""

    verb: str
    kind: Kind
    namespace: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        place = "/".join(part for part in (self.namespace, self.name) if part)
        return " ".join(part for part in (self.verb, self.kind.plural, place) if part)


_MANAGER = re.compile(r'^conflict with "(.*?)"')
_UNTYPED = "failed to create typed patch object"
"""What server-side apply says, as a 500, of a value of another type than the schema's."""


def error_for(target: Target, code: int, body: bytes, *, uid: str | None = None) -> EnginewrightError:
    """The error for an answer of 400 or more.

    `uid` says that the call asked for this uid: a merge patch has no preconditions, so an object of another uid is
    refused as an attempt to change an immutable field (422), which to the caller is the conflict it asked to be told.
    """
    status = _status(body)
    reason = str(status.get("reason") or "")
    said = f"{target}: {status.get('message') or f'the API server answered {code}'}"
    error: EnginewrightError
    match code:
        case 401:
            error = DeterministicError(FORBIDDEN, f"{said}: the API server does not know who asks: renew credentials")
        case 403 if _DENIED_BY_AUTHORIZATION.search(said):
            error = DeterministicError(FORBIDDEN, f"not allowed to {said}; grant the verb in a Role or ClusterRole")
        case 404 if not reason:
            kind = target.kind
            error = NotFoundError(
                "NotFound", f"{target}: {kind.api_version} {kind.kind} is not served: install its CRD"
            )
        case 404:
            error = NotFoundError(reason, said)
        case 409 if owned := _owned_fields(status):
            error = FieldConflictError(said, owned)
        case 409:
            error = ConflictError(reason or "Conflict", said)
        case 410:
            error = GoneError(reason or "Gone", said)
        case 422 if uid is not None and "metadata.uid" in _fields(status):
            error = another_uid(target, uid)
        case 408 | 429:
            error = UnavailableError(reason or "TooManyRequests", said)
        case 500 if _UNTYPED in said:
            error = InvalidError("Invalid", said)
        case _ if code >= 500:
            error = UnavailableError(reason or "ServerError", said)
        case _:
            error = InvalidError(reason or "BadRequest", said)
    return error


def another_uid(target: Target, uid: str) -> ConflictError:
    """The object that was meant is gone and another has its name."""
    return ConflictError("Conflict", f"{target}: the object's uid is not {uid}: it was deleted and made anew")


def _status(body: bytes) -> Mapping[str, Any]:
    """The `Status` object of an answer; plain text (from a proxy, or for an unknown path) as its message alone."""
    try:
        status = json.loads(body)
    except ValueError:
        text = body.decode(errors="replace").strip()
        return {"message": text[:_LONGEST_PLAIN_BODY]}
    return status if isinstance(status, dict) else {}


def _owned_fields(status: Mapping[str, Any]) -> list[OwnedField]:
    """Of an apply that was refused for others' fields: `conflict with "kubectl-edit" using apps/v1`, and the field."""
    causes = (status.get("details") or {}).get("causes") or ()
    return sorted(
        OwnedField(found[1], str(cause.get("field")))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
        and (found := _MANAGER.search(str(cause.get("message")))) is not None
    )


def _fields(status: Mapping[str, Any]) -> set[str]:
    causes = (status.get("details") or {}).get("causes") or ()
    return {str(cause.get("field")) for cause in causes}
