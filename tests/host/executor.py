"""The host's own executor in this process: graphs are checked and run as a server does it, values come from tests.

A value that no node of the host makes (a tensor of another dtype, an object of another pack) enters a graph through
`Executor.value`: a node whose output goes into any socket.
"""

import asyncio
import itertools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dynamicid_pack
import execution
import pytest

import nodes

from .graphs import Graph, Link


class _Anything(str):
    """A socket type that is equal to every other."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


class _Value:
    """Hands on a value of `Executor.values`."""

    RETURN_TYPES = (_Anything("*"),)
    FUNCTION = "take"
    values: dict[int, Any] = {}  # noqa: RUF012 (the host makes an object of its own for each node)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (the host's name)
        return {"required": {"number": ("INT", {"default": 0, "min": 0, "max": 2**31})}}

    def take(self, number: int) -> tuple[Any]:
        return (self.values[number],)


class _Result:
    """Keeps what it is given."""

    RETURN_TYPES = ()
    FUNCTION = "keep"
    OUTPUT_NODE = True
    kept: dict[int, Any] = {}  # noqa: RUF012

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"value": (_Anything("*"),), "number": ("INT", {"default": 0})}}

    def keep(self, value: Any, number: int) -> dict[str, Any]:
        self.kept[number] = value
        return {}


@dataclass
class _Server:
    """What the executor and the pack's warnings ask of a server."""

    client_id: str = "tests"
    last_node_id: str | None = None
    last_prompt_id: str | None = None
    notes: list[str] = field(default_factory=list)

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        pass

    def send_progress_text(self, text: str, node_id: str, sid: str | None = None) -> None:
        self.notes.append(text)


@dataclass(frozen=True)
class Ran:
    """What came of a graph.

    Attributes:
        message: the error that a user reads; "" where there was none.
        kind: the exception's class; "validation" where the host refused the graph before it ran.
        node: the class of the node that failed.
        values: what the nodes that `Executor.keep` added were given, in their order.
        notes: words on nodes.
    """

    message: str
    kind: str
    node: str
    values: list[Any]
    notes: list[str]


class Executor:
    """The host's executor, with the pack's nodes by their ids."""

    def __init__(self, server: _Server, pack: dict[str, Any]) -> None:
        self.pack = pack
        self._server, self._numbers = server, itertools.count()
        self._runner = execution.PromptExecutor(server, cache_type=None, cache_args={"ram": 0.0, "ram_inactive": 0.0})

    def value(self, graph: Graph, value: Any) -> Link:
        """Add a node to a graph that gives this value."""
        number = next(self._numbers)
        _Value.values[number] = value
        return graph.add("TestsValue", number=number)[0]

    def keep(self, graph: Graph, link: Link) -> None:
        """Keep what this output gives: the graph is run for it."""
        graph.add("TestsResult", value=link, number=next(self._numbers))

    @property
    def messages(self) -> list[Any]:
        """What the host tells, and keeps, of the last graph that it took."""
        return list(getattr(self._runner, "status_messages", ()))

    def run(self, graph: Graph, workflow: Any = None) -> Ran:
        """Check and run a graph.

        Args:
            workflow: the page's own graph, which it sends along.
        """
        _Result.kept, self._server.notes = {}, []
        valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("tests", graph, None))
        if not valid:
            texts = [f"{e['message']}: {e['details']}" for node in node_errors.values() for e in node["errors"]]
            failed = next((graph[node]["class_type"] for node in node_errors), "")
            return Ran("; ".join(texts) or f"{error['message']}: {error['details']}", "validation", failed, [], [])
        extra = {"client_id": "tests"} | ({"extra_pnginfo": {"workflow": workflow}} if workflow is not None else {})
        self._runner.execute(graph, "tests", extra, outputs)
        values = [_Result.kept[number] for number in sorted(_Result.kept)]
        failures = [data for event, data in self._runner.status_messages if event == "execution_error"]
        if not failures:
            return Ran("", "", "", values, self._server.notes)
        (failure,) = failures
        message = failure["exception_message"].removesuffix("\n")
        return Ran(message, failure["exception_type"], failure["node_type"], values, self._server.notes)


@pytest.fixture(scope="module", name="executor")
def executor_of_a_module() -> Iterator[Executor]:
    """An executor that has the pack's nodes beside the host's."""

    async def listed() -> list[Any]:
        extension = await dynamicid_pack.comfy_entrypoint()
        await extension.on_load()
        return list(await extension.get_node_list())

    server = _Server()
    pack = {node.GET_SCHEMA().node_id: node for node in asyncio.run(listed())}
    module = types.ModuleType("server")
    module.PromptServer = types.SimpleNamespace(instance=server)  # type: ignore[attr-defined]
    ours = {"TestsValue": _Value, "TestsResult": _Result}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "server", module)
        for name, node in (pack | ours).items():
            patch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node)
        yield Executor(server, pack)
    _Value.values.clear()
    _Result.kept.clear()
