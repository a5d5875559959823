"""Requests a second: so many at once, then one after the other; and a client that keeps to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import CONFIG_MAP, Ref
from enginewright_cluster.rate_limit import RateLimit


def test_the_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    limit = RateLimit(per_second=10, burst=3)
    assert [round(limit.reserve(100.0), 3) for _ in range(6)] == [0, 0, 0, 0.1, 0.2, 0.3]
    assert round(limit.reserve(100.4), 3) == 0.0
    assert [round(limit.reserve(200.0), 3) for _ in range(4)] == [0, 0, 0, 0.1], "a pause fills it up, no further"


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200), st.integers(1, 300), st.integers(1, 50))
def test_in_no_time_do_more_begin_than_the_limit_lets(pauses: list[float], per_second: int, burst: int) -> None:
    limit, now, begins = RateLimit(per_second, burst), 1000.0, []
    for pause in pauses:
        now += pause
        begins.append(now + limit.reserve(now))
    assert begins == sorted(begins), "in the order in which they were asked for"
    for first in range(len(begins)):
        for last in range(first, len(begins), 7):
            assert last - first + 1 <= burst + (begins[last] - begins[first]) * per_second + 1e-6


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "%s"}}]
users: [{name: me, user: {}}]
"""


@pytest.mark.parametrize("limited", [True, False])
async def test_requests_to_an_api_server_keep_to_it(tmp_path: Path, limited: bool) -> None:
    async def answer(request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        return web.json_response(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n"}}
        )

    app, waited, config = web.Application(), [], tmp_path / "config"
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        config.write_text(KUBECONFIG % str(server.make_url("")).rstrip("/"))
        limit = RateLimit(100, 10, waited.append) if limited else None
        cluster = await KubernetesCluster.from_kubeconfig(config, limit=limit)
        try:
            began = asyncio.get_running_loop().time()
            await asyncio.gather(*(cluster.get(Ref(CONFIG_MAP, f"c{number}", "n")) for number in range(40)))
            seconds = asyncio.get_running_loop().time() - began
        finally:
            await cluster.close()
    if limited:
        assert seconds >= 0.29, "30 beyond the burst at 100 a second"
        assert sum(waited) > 0
    else:
        assert not waited
