"""A ComfyUI server: starting it, queueing graphs as the page does, fetching what they saved.

Only the standard library is used, so that whoever needs a server pays for nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

JsonDict = dict[str, Any]

_FAILURES = ("execution_error", "execution_interrupted")


class ServerError(RuntimeError):
    """The server did not start, or refused or failed a graph; the text says why."""


class GraphError(ServerError):
    """The server refused a graph, or a node of it failed.

    Attributes:
        details: the server's error of a refused graph, or its `execution_error` message.
        node_errors: node id -> the errors in its inputs, found before anything ran.
    """

    def __init__(self, details: JsonDict, node_errors: JsonDict | None = None) -> None:
        self.details, self.node_errors = details, node_errors or {}
        prefix = f"{details['node_type']}: " if "node_type" in details else "the server refused the graph: "
        super().__init__(prefix + self.message)

    @property
    def message(self) -> str:
        """Return what a user reads: the failed node's message, or one line for each error of a refused graph."""
        if "exception_message" in self.details:
            return str(self.details["exception_message"])
        errors = [self.details, *(error for node in self.node_errors.values() for error in node["errors"])]
        return "\n".join(f"{error.get('message', '')} {error.get('details', '')}".strip() for error in errors)


class Client:
    """A running server, by its address ("http://127.0.0.1:8188"). Methods raise OSError if it can't be reached."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def alive(self) -> bool:
        """Whether a ComfyUI answers."""
        try:
            return "system" in self.get("/system_stats")
        except (OSError, ValueError):
            return False

    def get(self, path: str, **query: str) -> Any:
        """Return the JSON that the server answers. Raises ValueError if it is not JSON."""
        return json.loads(self.get_bytes(path, **query))

    def get_bytes(self, path: str, **query: str) -> bytes:
        """Return the bytes that the server answers."""
        return self._send(path + (f"?{urllib.parse.urlencode(query)}" if query else ""))

    def queue(self, graph: Mapping[str, Any], client_id: str = "") -> str:
        """Queue an API graph and return its prompt id.

        Args:
            client_id: whose websocket (`/ws?clientId=`) is told of the graph's progress.

        Raises GraphError if the server refuses the graph.
        """
        body = json.dumps({"prompt": graph, "client_id": client_id}).encode()
        try:
            return str(json.loads(self._send("/prompt", body, "application/json"))["prompt_id"])
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                answer = json.loads(text)
            except ValueError:
                answer = {"error": text}
            details = answer.get("error", text)
            details = details if isinstance(details, dict) else {"message": str(details)}
            raise GraphError(details, answer.get("node_errors")) from error

    def wait(self, prompt_id: str, timeout: float = 600.0) -> dict[str, JsonDict]:
        """Wait until a queued graph has ended; return its nodes' outputs: node id -> `images`, `text` and others.

        Raises ServerError if a node fails (GraphError) or the graph has not ended after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                for kind, details in entry["status"]["messages"]:
                    if kind in _FAILURES:
                        raise GraphError({"exception_message": "interrupted", **details})
                return dict(entry["outputs"])
            time.sleep(0.05)
        raise ServerError(f"the graph was not done after {timeout:g} seconds")

    def outputs(self, graph: Mapping[str, Any], timeout: float = 600.0) -> dict[str, JsonDict]:
        """Queue a graph and return its outputs. Raises as `queue` and `wait` do."""
        return self.wait(self.queue(graph), timeout)

    def run(self, graph: Mapping[str, Any], timeout: float = 600.0) -> list[dict[str, str]]:
        """Queue a graph and return the images that it saved. Raises as `queue` and `wait` do."""
        return saved_images(self.outputs(graph, timeout))

    def fetch(self, image: Mapping[str, str]) -> bytes:
        """Return the file of an image that `run` or `saved_images` named."""
        return self.get_bytes("/view", **{key: image[key] for key in ("filename", "subfolder", "type")})

    def upload(self, name: str, data: bytes) -> str:
        """Put an image into the server's input folder, replacing one of that name; return Load Image's name for it."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'.encode(),
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode(),
            data,
            f"\r\n--{boundary}--\r\n".encode(),
        ]
        answer = self._send("/upload/image", b"".join(parts), f"multipart/form-data; boundary={boundary}")
        return str(json.loads(answer)["name"])

    def _send(self, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers), timeout=60) as answer:
            return bytes(answer.read())


def saved_images(outputs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the images among a graph's outputs that were saved, not only previewed.

    Each is named as the server names it: `filename`, `subfolder`, `type`.
    """
    images = [image for node in outputs.values() for image in node.get("images", [])]
    return [image for image in images if image.get("type") == "output"]


def shown_texts(outputs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the texts that a graph's nodes showed, by their ids."""
    return {name: [str(text) for text in node["text"]] for name, node in outputs.items() if node.get("text")}


@contextlib.contextmanager
def server(
    command: Sequence[str],
    log: Path,
    timeout: float = 240.0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Client]:
    """Start ComfyUI on a free port, wait until it answers, and end it afterwards.

    Args:
        command: its Python, main.py and options, but for the port.
        log: the file that all it prints is appended to.
        env: environment variables, by default those of this process.

    Raises ServerError, with the log's end, if it ends or doesn't answer within `timeout` seconds.
    """
    port = _free_port()
    client = Client(f"http://127.0.0.1:{port}")
    command = [*command, "--port", str(port), "--disable-auto-launch"]
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=cwd, env=env or os.environ
        )
    try:
        end = time.monotonic() + timeout
        while not client.alive:
            code = process.poll()
            if code is not None or time.monotonic() > end:
                reason = f"did not answer within {timeout:g} seconds" if code is None else f"ended with code {code}"
                raise ServerError(f"ComfyUI {reason}; {log} ends:\n{log_tail(log)}")
            time.sleep(0.2)
        yield client
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def log_tail(log: Path, lines: int = 40) -> str:
    """Return a log's last lines."""
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-lines:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
