"""Pictures to a server and back, as HTTP: against a small server that keeps what it is sent."""

import json
import threading
from collections.abc import Iterator
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

import pytest
from dynamicid_pack.dynamicid_core.evaluation.client import Client

PICTURE = bytes(range(256)) * 3 + b"\r\n--\r\n"


class _Handler(BaseHTTPRequestHandler):
    kept: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message: Any = BytesParser().parsebytes(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body)
        parts = {part.get_param("name", header="content-disposition"): part for part in message.get_payload()}
        assert parts["overwrite"].get_payload() == "true"
        name = parts["image"].get_filename()
        self.kept[name] = parts["image"].get_payload(decode=True)
        self._answer(json.dumps({"name": name, "subfolder": "", "type": "input"}).encode())

    def do_GET(self) -> None:
        asked = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()}
        assert asked.keys() == {"filename", "subfolder", "type"}
        content = self.kept.get(asked["subfolder"] + asked["filename"])
        self._answer(content or b"", 200 if content else 404)

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kept() -> dict[str, bytes]:
    return {}


@pytest.fixture
def client(kept: dict[str, bytes]) -> Iterator[Client]:
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"kept": kept}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Client(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_uploaded_picture_arrives_byte_for_byte(client: Client, kept: dict[str, bytes]) -> None:
    assert client.upload("ann 1.png", PICTURE) == "ann 1.png"
    assert kept == {"ann 1.png": PICTURE}


def test_a_saved_picture_is_fetched_byte_for_byte(client: Client, kept: dict[str, bytes]) -> None:
    kept["a folder/é & 1.png"] = PICTURE
    saved = {"filename": "é & 1.png", "subfolder": "a folder/", "type": "output"}
    assert client.fetch(saved) == PICTURE
    with pytest.raises(HTTPError):
        client.fetch(saved | {"filename": "absent.png"})
