"""The same cases through a running server: whatever it meets, it draws the next picture."""

import shutil
from pathlib import Path
from random import Random

import pytest

from ..host.conftest import PEOPLE
from ..host.graphs import Graph, Scene, Settings, portrait
from ..host.server import Server
from .families.identities import IDENTITIES
from .families.names import NAMES
from .families.weights import WEIGHTS
from .judge import MARK, Family

CASES = 40  # of each family
QUICK = Settings(steps=1, cfg=1.0)


def drawn(family: Family, number: int, folder: Path) -> Path | None:
    """Return the file of a case, if there is one that can be copied."""
    folder.mkdir()
    path: Path = family.draw(Random(f"{family.name} {number}"), folder).arguments[0]
    return path if path.is_file() and path.stat().st_size < 2**26 else None


def with_weights(name: str) -> Graph:
    scene = Scene(QUICK)
    scene.apply(scene.loader(saa=name), [scene.identity(PEOPLE[0])])
    scene.sample()
    scene.save()
    return scene


def saving(name: str) -> Graph:
    graph = Graph()
    graph.add("DynamicIDSaveIdentity", identity=graph.add("DynamicIDLoadIdentity", name=PEOPLE[0])[0], name=name)
    return graph


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_server_lives_through_it(server: Server, tmp_path: Path) -> None:
    models = server.models / "dynamicid"
    for number in range(CASES):
        graphs, files = [saving(NAMES.draw(Random(f"names {number}"), tmp_path).arguments[1])], []
        if path := drawn(WEIGHTS, number, tmp_path / f"weights {number}"):
            files.append(Path(shutil.copy(path, models / f"{number} {path.name}")))
            graphs.append(with_weights(files[-1].name))
        if path := drawn(IDENTITIES, number, tmp_path / f"identities {number}"):
            files.append(Path(shutil.copy(path, models / "identities" / f"{number} {path.name}")))
            graphs.append(portrait([files[-1].stem], QUICK))
        for graph in graphs:
            message = server.run(graph, timeout=60).message.removesuffix("\n")
            assert message.isprintable() and len(message) < 2000, message
        for file in files:
            file.unlink()
    assert not list(tmp_path.rglob(MARK))
    result = server.run(portrait(PEOPLE[:2], QUICK))
    assert result.message == "" and len(result.images) == 1
