"""A real ComfyUI server in a folder of its own, with this pack linked in, and a client for its API."""

import asyncio
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

PACK = Path(__file__).resolve().parents[2]

JsonDict = dict[str, Any]


@dataclass
class Result:
    """What one queued graph did; node ids as in the graph."""

    images: list[np.ndarray] = field(default_factory=list)
    """Saved pictures, fetched from the server: (height, width, 3) uint8."""
    outputs: JsonDict = field(default_factory=dict)
    """node id -> what the node told the page (pictures' names, text)."""
    executed: list[str] = field(default_factory=list)
    """Nodes that ran, in order, a failed one included."""
    cached: list[str] = field(default_factory=list)
    """Nodes whose result was kept from an earlier run."""
    progress: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """node id -> (value, of) as the websocket reported them."""
    error: JsonDict | None = None
    """The server's answer to a refused graph, or its `execution_error` message; None when all went well."""
    node_errors: JsonDict = field(default_factory=dict)
    """node id -> the errors found in its inputs before anything ran."""

    @property
    def message(self) -> str:
        """What a user reads of the error, "" without one."""
        if self.error is None:
            return ""
        if "exception_message" in self.error:
            return str(self.error["exception_message"])
        found = [self.error, *(error for node in self.node_errors.values() for error in node["errors"])]
        return "\n".join(f"{error.get('message', '')} {error.get('details', '')}".strip() for error in found)

    def steps(self, node: str) -> int:
        """How many sampling steps this node reported as done."""
        return max((value for value, _ in self.progress.get(node, [])), default=0)


class Server:
    """One server process: `start`, then `run` graphs, then `stop`; also a context manager.

    The folder holds what a user's ComfyUI folder holds (`models/…`, `custom_nodes/…`, `output`) and `server.log`.
    """

    def __init__(self, folder: Path, arguments: Iterable[str] = ("--cpu",)) -> None:
        self.folder = folder
        self.arguments = list(arguments)
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        for part in ("custom_nodes", "user", "input", "output", "models/dynamicid/identities"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        link(PACK, folder / "custom_nodes" / "dynamicid")

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

    def start(self, timeout: float = 240) -> "Server":
        """Start the process and wait until it answers; on failure the error ends with the log's tail."""
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        database = self.folder / "user" / "comfyui.db"
        command = [
            *(sys.executable, str(Path(os.environ["COMFYUI_PATH"]) / "main.py"), "--port", str(port)),
            *("--base-directory", str(self.folder), "--database-url", f"sqlite:///{database.as_posix()}"),
            # everything stays cached whatever memory is left, so that what ran again means the same on every machine
            *("--disable-api-nodes", "--disable-auto-launch", "--cache-lru", "200"),
            *self.arguments,
        ]
        # threads that wait for each other by spinning make sampling ten times slower beside any other busy process
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
        environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the process; nothing happens when it has ended already."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)

    @property
    def alive(self) -> bool:
        """Whether the process runs and answers."""
        if self._process is None or self._process.poll() is not None:
            return False
        try:
            return "system" in self.get("/system_stats")
        except (OSError, aiohttp.ClientError):
            return False

    def get(self, path: str, **query: str) -> Any:
        """The JSON that the server answers to GET."""
        return json.loads(asyncio.run(self._request("GET", path, query))[1])

    def fetch(self, path: str, **query: str) -> bytes:
        """The bytes that the server answers to GET."""
        return asyncio.run(self._request("GET", path, query))[1]

    def free(self) -> None:
        """Have the server drop its models and cached results."""
        asyncio.run(self._request("POST", "/free", {}, {"unload_models": True, "free_memory": True}))

    def run(self, graph: Mapping[str, Any], timeout: float = 600) -> Result:
        """Queue an API graph, follow it on the websocket to its end and fetch the pictures that it saved."""
        try:
            return asyncio.run(asyncio.wait_for(self._run(graph), timeout))
        except (asyncio.TimeoutError, aiohttp.ClientError, OSError) as error:
            raise RuntimeError(
                f"the server did not finish the graph ({error!r}); its log ends:\n{self._tail()}"
            ) from error

    async def _run(self, graph: Mapping[str, Any]) -> Result:
        client = uuid.uuid4().hex
        result = Result()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{self.url}/ws?clientId={client}", max_msg_size=0) as events,
        ):
            async with session.post(f"{self.url}/prompt", json={"prompt": graph, "client_id": client}) as answer:
                queued = await answer.json()
            if answer.status != 200:
                result.error, result.node_errors = _as_dict(queued["error"]), queued.get("node_errors") or {}
                return result
            await _follow(events, queued["prompt_id"], result)
            result.outputs = await self._outputs(session, queued["prompt_id"])
            for picture in _saved(result.outputs):
                async with session.get(f"{self.url}/view", params=picture) as answer:
                    result.images.append(np.asarray(Image.open(io.BytesIO(await answer.read())).convert("RGB")))
        return result

    async def _outputs(self, session: aiohttp.ClientSession, prompt: str) -> JsonDict:
        """The prompt's outputs in the history, which the server writes a moment after it tells of the end."""
        while True:
            async with session.get(f"{self.url}/history/{prompt}") as answer:
                history = await answer.json()
            if prompt in history:
                return dict(history[prompt]["outputs"])
            await asyncio.sleep(0.02)

    async def _request(
        self, method: str, path: str, query: Mapping[str, str], body: JsonDict | None = None
    ) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.request(method, self.url + path, params=dict(query), json=body) as answer,
        ):
            return answer.status, await answer.read()

    def _wait(self, timeout: float) -> None:
        assert self._process is not None
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            code = self._process.poll()
            if code is not None:
                raise RuntimeError(f"ComfyUI ended with code {code} while starting; its log ends:\n{self._tail()}")
            if self.alive:
                return
            time.sleep(0.3)
        raise RuntimeError(f"ComfyUI did not answer within {timeout:.0f} s; its log ends:\n{self._tail()}")

    def _tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.splitlines()[-lines:])


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


async def _follow(events: aiohttp.ClientWebSocketResponse, prompt: str, result: Result) -> None:
    """Fill in what the websocket tells about this prompt until it has ended."""
    async for message in events:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue  # previews are binary
        event = json.loads(message.data)
        kind, data = event["type"], event["data"]
        if data.get("prompt_id") != prompt:
            continue
        if kind == "execution_cached":
            result.cached = list(data["nodes"])
        elif kind == "executing" and data["node"] is not None:
            result.executed.append(data["node"])
        elif kind == "progress":
            result.progress.setdefault(data["node"], []).append((data["value"], data["max"]))
        elif kind in ("execution_error", "execution_interrupted"):
            result.error = data
            return
        elif kind == "execution_success":
            return
    raise RuntimeError("the server closed the websocket before the graph had ended")


def _saved(outputs: JsonDict) -> list[JsonDict]:
    pictures = [picture for output in outputs.values() for picture in output.get("images", [])]
    return [picture for picture in pictures if picture.get("type") == "output"]


def _as_dict(error: Any) -> JsonDict:
    return error if isinstance(error, dict) else {"message": str(error)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
