"""Fixtures for tests in the real host: its modules in this process (on the CPU), and a real server.

Those of stage.py, executor.py, bench.py and room.py are offered here, too: a module imports none.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("COMFYUI_PATH"):
    raise pytest.UsageError("tests/host need a host: run `python dev.py test`, or set COMFYUI_PATH to ComfyUI's folder")

import comfy.cli_args

# before anything else of the host is imported, since its modules read these once: the CPU, and a folder of our own
# instead of the host's for what it reads and writes
comfy.cli_args.args.cpu = True
_FOLDER = tempfile.TemporaryDirectory(prefix="dynamicid-host-", ignore_cleanup_errors=True)
comfy.cli_args.args.base_directory = _FOLDER.name

import torch  # noqa: E402
from PIL import Image  # noqa: E402

from . import full_size, model_files, tiny  # noqa: E402
from .bench import bench_of_a_module  # noqa: E402, F401 (a fixture)
from .executor import executor_of_a_module  # noqa: E402, F401 (a fixture)
from .graphs import FULL_SIZE, MINIATURE, Models, Scene  # noqa: E402
from .room import (  # noqa: E402
    kept_for_all_tests,  # noqa: F401 (a fixture)
    room_whose_drawings_are_all_kept,  # noqa: F401 (a fixture)
    sampler_runs,  # noqa: F401 (a fixture)
    what_the_sampler_is_handed,  # noqa: F401 (a fixture)
)
from .server import PACK, Server, link  # noqa: E402
from .stage import loaded_for_all_tests_of_a_module, stage_for_one_test, warnings_taken  # noqa: E402, F401 (fixtures)

PEOPLE = tuple(f"person_{index:02}" for index in range(12))
"""Identities that the server has, as Load Identity lists them."""

PHOTOGRAPHS = ("first.png", "second.png", "third.png")
"""Portraits of drawn people that the server has, as Load Image lists them."""


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    """The host runs every node so."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def generated() -> full_size.GeneratedFiles:
    """Full-size model files, made where they are missing."""
    return full_size.generated_files()


@pytest.fixture(scope="session")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Server]:
    """Prepares a server with models and identities: `with make_server(FULL_SIZE, "--lowvram") as running: …`."""

    def make(models: Models, *arguments: str) -> Server:
        server = Server(tmp_path_factory.mktemp("comfyui"), arguments or ("--cpu",))
        put = model_files.put_full_size if models is FULL_SIZE else model_files.put_miniature
        put(server.models)
        fingerprint = model_files.encoder_fingerprint(server.models / "dynamicid" / models.adapter)
        for seed, name in enumerate(PEOPLE, start=1):
            path = server.models / "dynamicid" / "identities" / f"{name}.safetensors"
            tiny.identity_file(path, seed, encoder=fingerprint, width=models.width)
        put_photographs(server)
        return server

    return make


@pytest.fixture(scope="session")
def miniature_server(make_server: Callable[..., Server]) -> Iterator[Server]:
    """A server on the CPU, with the miniature's models."""
    with make_server(MINIATURE) as running:
        yield running


@pytest.fixture(scope="session")
def full_size_server(make_server: Callable[..., Server]) -> Iterator[Server]:
    """A server on the CPU, with models of SD1.5's size."""
    with make_server(FULL_SIZE) as running:
        yield running


@pytest.fixture(scope="session")
def server(miniature_server: Server) -> Server:
    """The server that most tests share."""
    return miniature_server


@pytest.fixture
def full_size_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes begin with the models of the full size."""
    monkeypatch.setattr(Scene, "models", FULL_SIZE)


@pytest.fixture(
    params=[
        pytest.param("miniature_server", marks=pytest.mark.server, id="miniature"),
        pytest.param("full_size_server", marks=pytest.mark.full_size, id="full size"),
    ]
)
def either_server(request: pytest.FixtureRequest) -> Server:
    """Each of the two servers in turn, with scenes of its size."""
    if request.param == "full_size_server":
        request.getfixturevalue("full_size_scenes")
    running: Server = request.getfixturevalue(request.param)
    return running


def put_photographs(server: Server) -> None:
    """Give a server the portraits, and a face pack that knows drawn people: the miniature's, shaped as buffalo_l."""
    link(PACK / "mini" / "weights" / "face-pack", server.models / "insightface" / "models" / "buffalo_l")
    for number, name in enumerate(PHOTOGRAPHS):
        portrait(server.folder / "input" / name, number)


def portrait(path: Path, number: int) -> None:
    """Save a drawn person's portrait (512 x 512), another for each number."""
    from dynamicid_pack.mini.world.world import World

    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = World(seed=21, held_out_people=True).sample(number, 1).picture()
    Image.fromarray(drawn.image).resize((512, 512), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def tiny_model() -> Any:
    """A fresh ModelPatcher around the small SD1.5-shaped model."""
    return tiny.tiny_patcher()


@pytest.fixture(scope="session")
def tiny_adapter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model's adapter as a file."""
    return tiny.adapter_file(tmp_path_factory.mktemp("adapter") / "tiny.safetensors")
