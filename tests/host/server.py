"""A real ComfyUI server in a folder of its own, with this pack linked in; its progress is heard on the websocket."""

import asyncio
import contextlib
import io
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from dynamicid_pack.dynamicid_core.evaluation.client import Client, GraphError, JsonDict, log_tail, saved_images, server
from PIL import Image

PACK = Path(__file__).resolve().parents[2]


@dataclass
class Result:
    """What one queued graph did; node ids as in the graph."""

    images: list[np.ndarray] = field(default_factory=list)
    """Saved images, fetched from the server: (height, width, 3) uint8."""
    outputs: JsonDict = field(default_factory=dict)
    """node id -> what the node told the page (images' names, text)."""
    executed: list[str] = field(default_factory=list)
    """Nodes that ran, in order, a failed one included."""
    cached: list[str] = field(default_factory=list)
    """Nodes whose result was kept from an earlier run."""
    progress: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """node id -> (value, of) as the websocket reported them."""
    error: JsonDict | None = None
    """The server's error of a refused graph, or its `execution_error` message; None when all went well."""
    node_errors: JsonDict = field(default_factory=dict)
    """node id -> the errors found in its inputs before anything ran."""
    message: str = ""
    """What a user reads of the error, "" without one."""


class Server:
    """One server process: `start`, then `run` graphs, then `stop`; also a context manager.

    The folder holds what a user's ComfyUI folder holds (`models/…`, `custom_nodes/…`, `output`) and `server.log`.
    """

    def __init__(self, folder: Path, arguments: Iterable[str] = ("--cpu",), pack: Path = PACK) -> None:
        self.folder = folder
        self.arguments = list(arguments)
        self._client = Client("")
        self._process = contextlib.ExitStack()
        for part in ("custom_nodes", "user", "input", "output", "models/dynamicid/identities"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        link(pack, folder / "custom_nodes" / "dynamicid")

    @property
    def url(self) -> str:
        """The address without a slash at its end."""
        return self._client.url

    @property
    def models(self) -> Path:
        """The folder of model folders."""
        return self.folder / "models"

    @property
    def log(self) -> str:
        """All that the server printed so far."""
        path = self.folder / "server.log"
        return path.read_text("utf-8", errors="replace") if path.exists() else ""

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> "Server":
        """Start the process and wait until it answers; on failure the error ends with the log's tail."""
        database = self.folder / "user" / "comfyui.db"
        command = [
            *(sys.executable, str(Path(os.environ["COMFYUI_PATH"]) / "main.py")),
            *("--base-directory", str(self.folder), "--database-url", f"sqlite:///{database.as_posix()}"),
            # everything stays cached whatever memory is left, so that what ran again means the same on every machine
            *("--disable-api-nodes", "--cache-lru", "200"),
            *self.arguments,
        ]
        # threads that wait for each other by spinning make sampling ten times slower beside any other busy process
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
        environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        running = server(command, self.folder / "server.log", cwd=self.folder, env=environment)
        self._client = self._process.enter_context(running)
        return self

    def stop(self) -> None:
        """End the process; nothing happens when it has ended already."""
        self._process.close()

    @property
    def alive(self) -> bool:
        """Whether the server answers."""
        return self._client.alive

    def get(self, path: str, **query: str) -> Any:
        """The JSON that the server answers to GET."""
        return self._client.get(path, **query)

    def fetch(self, path: str, **query: str) -> bytes:
        """The bytes that the server answers to GET."""
        return self._client.get_bytes(path, **query)

    def run(self, graph: Mapping[str, Any], timeout: float = 600) -> Result:
        """Queue an API graph, follow it on the websocket to its end and fetch the images that it saved."""
        result = Result()
        try:
            asyncio.run(asyncio.wait_for(self._run(graph, result), timeout))
        except GraphError as error:
            result.error, result.node_errors, result.message = error.details, error.node_errors, error.message
        except (asyncio.TimeoutError, aiohttp.ClientError, OSError) as error:
            tail = log_tail(self.folder / "server.log")
            raise RuntimeError(f"the server did not finish the graph ({error!r}); its log ends:\n{tail}") from error
        return result

    async def _run(self, graph: Mapping[str, Any], result: Result) -> None:
        """Fill in what the server tells of a graph."""
        client_id = uuid.uuid4().hex
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{self.url}/ws?clientId={client_id}", max_msg_size=0) as events,
        ):
            prompt_id = self._client.queue(graph, client_id)
            await _follow(events, prompt_id, result)
        result.outputs = self._client.wait(prompt_id, 60)  # the history is written a moment after the end is told
        for image in saved_images(result.outputs):
            result.images.append(np.asarray(Image.open(io.BytesIO(self._client.fetch(image))).convert("RGB")))


def link(source: Path, target: Path) -> None:
    """Make the file or folder appear at target: a symbolic link, or a copy where the system refuses links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".git", "__pycache__", "tests"))
        else:
            shutil.copyfile(source, target)


async def _follow(events: aiohttp.ClientWebSocketResponse, prompt_id: str, result: Result) -> None:
    """Fill in what the websocket tells about this prompt until it has ended."""
    async for message in events:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue  # previews are binary
        event = json.loads(message.data)
        kind, data = event["type"], event["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "execution_cached":
            result.cached = list(data["nodes"])
        elif kind == "executing" and data["node"] is not None:
            result.executed.append(data["node"])
        elif kind == "progress":
            result.progress.setdefault(data["node"], []).append((data["value"], data["max"]))
        elif kind in ("execution_error", "execution_interrupted", "execution_success"):
            return
    raise RuntimeError("the server closed the websocket before the graph had ended")
