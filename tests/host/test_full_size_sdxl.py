"""SDXL at full size in a real server: its template draws, and an adapter for SD1.5 is refused there.

The UNet stays in bfloat16, as `--bf16-unet` has it, and no other large server runs meanwhile (tests/tiers.py).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management as memory
import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.evaluation.template import api_graph

from . import faceid, full_size
from .conftest import put_photographs
from .full_size_sdxl import sdxl_files
from .graphs import SDXL
from .server import Server, link
from .templates import OF_SDXL, at_hand

pytestmark = pytest.mark.timeout(3000)

MEMORY = 17  # GB that must be free: the server took up to 15.7
SIZE = (256, 256)


@pytest.fixture(scope="module")
def sdxl_server(generated: full_size.GeneratedFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the CPU with SDXL's files, which are gone with it; beside them the adapter for SD1.5."""
    free = memory.get_free_memory(torch.device("cpu")) / 1e9
    if free < MEMORY:
        pytest.skip(f"SDXL at full size takes {MEMORY} GB of memory, {free:.0f} are free")
    with tempfile.TemporaryDirectory(prefix="generated-sdxl-", dir=full_size.cache_folder()) as folder:
        files = sdxl_files(Path(folder))
        server = Server(tmp_path_factory.mktemp("comfyui-sdxl"), ("--cpu", "--bf16-unet"))
        for kind, file in (
            ("checkpoints", files.checkpoint),
            ("dynamicid", files.faceid),
            ("dynamicid", generated.faceid),
            ("clip_vision", generated.clip_vision),
        ):
            link(file, server.models / kind / file.name)
        put_photographs(server)
        with server:
            yield server


def drawn(server: Server, template: Path, **changed: Any) -> np.ndarray:
    result = server.run(graph_of(server, template, **changed), timeout=2400)
    assert result.message == ""
    (picture,) = result.images
    return picture.astype(float)


def graph_of(server: Server, template: Path, **changed: Any) -> dict[str, Any]:
    """The template as it is, but for the checkpoint's and CLIP's names, the size and the steps; `changed` by input."""
    graph = at_hand(api_graph(template, server.get("/object_info")), SDXL, SIZE)
    for node in graph.values():
        node["inputs"] |= {name: value for name, value in changed.items() if name in node["inputs"]}
    return graph


@pytest.mark.parametrize("template", OF_SDXL, ids=lambda path: path.stem)
def test_its_template_draws_two_people(template: Path, sdxl_server: Server) -> None:
    picture = drawn(sdxl_server, template)
    assert picture.shape == (*SIZE, 3)
    assert picture.std() > 5, "one colour"
    assert "FaceID Plus v2 for SDXL: 4 tokens of 2048, rank 128" in sdxl_server.log
    plain = drawn(sdxl_server, template, weight=0.0)
    assert abs(picture - plain).mean() > 1, "the people did not change the picture"


def test_an_adapter_for_sd15_is_refused_by_name(sdxl_server: Server) -> None:
    """Before anything is sampled."""
    graph = graph_of(sdxl_server, OF_SDXL[0], saa=faceid.name_of("FaceID Plus v2"))
    result = sdxl_server.run(graph)
    assert "this model is SDXL: it has 70 cross-attention layers" in result.message
    assert "was made for SD1.5: 16 cross-attention layers" in result.message
    assert "KSampler" not in {graph[node]["class_type"] for node in result.executed}
