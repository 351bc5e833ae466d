"""What the registry ships works alone, without the rest of the checkout."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import dynamicid_pack
import pytest
from dynamicid_pack.dynamicid_core.evaluation.template import api_graph
from dynamicid_pack.tests.dev.shipped import LARGEST, LEFT_OUT, shipped_files
from dynamicid_pack.tests.support import ROOT

from .server import Server
from .texts import node_infos

NAME = "shipped_pack"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Path]:
    """The shipped files in a folder of their own; what is imported of them is forgotten afterwards."""
    for path in shipped_files():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tmp_path / path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
        del sys.modules[name]


def test_the_shipped_files_have_the_same_nodes(alone: Path) -> None:
    spec = importlib.util.spec_from_file_location(NAME, alone / "__init__.py", submodule_search_locations=[str(alone)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    assert node_infos(module) == node_infos(dynamicid_pack)
    mini = importlib.import_module(f"{NAME}.dynamicid_core.host.miniature")
    assert mini.WEIGHTS.is_relative_to(alone) and mini.load_miniature().dynamicid.checkpoint


@pytest.mark.full
@pytest.mark.server
@pytest.mark.timeout(900)
def test_the_registrys_zip_draws_alone(tmp_path: Path) -> None:
    """The zip that the registry's own tool makes: small, without test and training code, and a server runs on it."""
    made = tmp_path / "node.zip"
    subprocess.run([sys.executable, str(ROOT / "dev.py"), "pack", str(made)], cwd=ROOT, check=True)
    assert made.stat().st_size <= LARGEST
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "pack")
    assert sorted(names) == sorted(shipped_files())
    assert not [name for name in names if name.startswith(LEFT_OUT)]

    with Server(tmp_path / "comfyui", pack=tmp_path / "pack") as server:
        nodes = server.get("/object_info")
        assert {name for name in nodes if name.startswith("DynamicID")} == set(node_infos(dynamicid_pack))
        result = server.run(api_graph(tmp_path / "pack" / "workflows" / "mini_02_two_people.json", nodes))
        assert not result.message and all(image.std() > 10 for image in result.images) and len(result.images) == 2
        assert "Traceback" not in server.log
