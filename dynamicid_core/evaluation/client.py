"""A ComfyUI server and its API: graphs are queued as the page queues them, the pictures are those that it saves."""

import contextlib
import json
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


class ServerError(RuntimeError):
    """The server did not start, or refused or failed a graph; the text says why."""


class Client:
    """A running server, by its address ("http://127.0.0.1:8188")."""

    def __init__(self, address: str):
        self.address = address

    def get(self, path: str) -> Any:
        """The JSON that the server answers. Raises OSError when it can't be reached."""
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

    def run(self, graph: Mapping[str, Any], timeout: float = 600.0) -> list[dict[str, str]]:
        """Queue a graph, wait until it is done, and say what it saved.

        Returns pictures as the server names them: `filename`, `subfolder`, `type`. Raises as `outputs` does.
        """
        return saved_pictures(self.outputs(graph, timeout))

    def outputs(self, graph: Mapping[str, Any], timeout: float = 600.0) -> dict[str, dict[str, Any]]:
        """Queue a graph, wait until it is done, and give what its nodes show: node id -> `images`, `text` and others.

        Raises ServerError when the graph is refused, fails, or isn't done after `timeout` seconds.
        """
        body = json.dumps({"prompt": graph}).encode()
        request = urllib.request.Request(self.address + "/prompt", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                number = json.load(answer)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise ServerError(f"the server refused the graph: {error.read().decode(errors='replace')}") from error
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            done = self.get(f"/history/{number}").get(number)
            if done is not None:
                return self._outputs(done)
            time.sleep(0.1)
        raise ServerError(f"the graph was not done after {timeout:g} seconds")

    def fetch(self, saved: Mapping[str, str]) -> bytes:
        """The file of a picture that `run` told of. Raises OSError when it can't be had."""
        asked = urllib.parse.urlencode({key: saved[key] for key in ("filename", "subfolder", "type")})
        with urllib.request.urlopen(f"{self.address}/view?{asked}", timeout=60) as answer:
            return bytes(answer.read())

    def upload(self, name: str, data: bytes) -> str:
        """Put a picture into the server's input folder, in place of one of that name; what Load Image calls it.

        Raises OSError when the server refuses it.
        """
        edge = uuid.uuid4().hex
        parts = [
            f'--{edge}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'.encode(),
            f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode(),
            data,
            f"\r\n--{edge}--\r\n".encode(),
        ]
        kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        request = urllib.request.Request(self.address + "/upload/image", b"".join(parts), kind)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(json.load(answer)["name"])

    def _outputs(self, done: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        for kind, said in done["status"]["messages"]:
            if kind == "execution_error":
                raise ServerError(f"{said['node_type']}: {said['exception_message']}")
        return dict(done["outputs"])


def saved_pictures(outputs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """The pictures among what nodes show that were saved, not only previewed."""
    pictures = [picture for node in outputs.values() for picture in node.get("images", [])]
    return [picture for picture in pictures if picture["type"] == "output"]


@contextlib.contextmanager
def server(command: Sequence[str], log: Path, timeout: float = 240.0) -> Iterator[Client]:
    """Start ComfyUI on a free port, wait until it answers, and end it afterwards.

    Args:
        command: its Python, main.py and options, but for the port.
        log: the file that all it prints is added to.

    Raises ServerError, with the log's end, when it stops or doesn't answer within `timeout` seconds.
    """
    port = _free_port()
    client = Client(f"http://127.0.0.1:{port}")
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--disable-auto-launch"], stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        end = time.monotonic() + timeout
        while not _answers(client):
            if process.poll() is not None or time.monotonic() > end:
                tail = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-20:])
                raise ServerError(f"ComfyUI did not start; {log} ends:\n{tail}")
            time.sleep(0.2)
        yield client
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(client: Client) -> bool:
    try:
        return "system" in client.get("/system_stats")
    except (OSError, ValueError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
