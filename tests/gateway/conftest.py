"""A real tritonserver and a real gateway in front of it, once a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.running_gateway import RunningGateway
from tests.gateway.triton_process import TritonProcess, missing
from tests.required import cannot_run


@pytest.fixture(scope="session")
def triton() -> Iterator[TritonProcess]:
    """One server with the model `words`."""
    if reason := missing():
        cannot_run(reason)
    server = TritonProcess()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="module")
def gateway(triton: TritonProcess) -> Iterator[RunningGateway]:
    """A gateway with one model and one endpoint."""
    with RunningGateway() as running:
        running.add_model()
        running.add_endpoint("one", triton.http_port, triton.grpc_port)
        yield running
