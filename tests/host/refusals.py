"""What tests of wrong input share: the error that a user reads, and a server that lives on."""

from collections.abc import Iterator

import pytest

from .conftest import PEOPLE
from .graphs import Graph, Settings, portrait
from .server import Server

QUICK = Settings(steps=1, cfg=1.0)


@pytest.fixture(scope="module", autouse=True)
def still_samples(server: Server) -> Iterator[None]:
    """After everything below, the server still does what it is for."""
    yield
    result = server.run(portrait(PEOPLE[:2], QUICK))
    assert result.message == ""
    assert len(result.images) == 1


def refusal(server: Server, graph: Graph, node: str) -> str:
    """The error that a user reads when this graph is queued: raised by a node of this class, before any sampling."""
    result = server.run(graph)
    assert result.error is not None, "the server took it"
    assert server.alive
    ids = result.node_errors.keys() or {result.error.get("node_id")}
    assert {graph[i]["class_type"] for i in ids if i} == {node}
    assert "KSampler" not in [graph[i]["class_type"] for i in result.executed]
    return result.message
