"""Foreign exceptions in terms of the one error tree: what can be retried, with what, and what cannot."""

from __future__ import annotations

import errno

from enginewright_api.errors import DeterministicError, EnginewrightError, ResourceError, TransientError


class OutOfMemoryError(ResourceError):
    """The build needed more memory than it was given; `needs_memory_bytes` is what another attempt should have."""

    def __init__(self, message: str, *, needs_memory_bytes: int | None = None) -> None:
        super().__init__("OutOfMemory", message)
        self.needs_memory_bytes = needs_memory_bytes


class StageError(Exception):
    """An error and the stage it happened in."""

    def __init__(self, stage: str, error: EnginewrightError) -> None:
        super().__init__(f"{stage}: {error}")
        self.stage = stage
        self.error = error


class InterruptedBuildError(TransientError):
    """SIGTERM or SIGINT: the node is drained, or a person stopped it. The next attempt resumes."""

    def __init__(self) -> None:
        super().__init__("Interrupted", "the build was told to stop; another attempt resumes after the last stage")


_TORCH_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "bad allocation", "std::bad_alloc")


def translate(error: BaseException) -> EnginewrightError:
    """The failure an exception stands for. What nobody foresaw is Deterministic: retrying would hide a bug."""
    if isinstance(error, EnginewrightError):
        return error
    if isinstance(error, MemoryError) or any(text in str(error) for text in _TORCH_OUT_OF_MEMORY):
        return OutOfMemoryError("memory ran out; give the build more, or a smaller model")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        written = error.filename2 or error.filename  # a copy names its source first
        where = f" while writing {written}" if written else ""
        return ResourceError("DiskFull", f"the disk is full{where}; give the build a larger volume")
    if isinstance(error, ConnectionError | TimeoutError):
        return TransientError("ConnectionLost", f"a connection was lost ({error})")
    return DeterministicError("InternalError", f"{type(error).__name__}: {error}"[:500])
