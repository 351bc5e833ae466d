"""Where the pack's files lie: `models/dynamicid` and its `identities`, through the host's folder_paths."""

import os
import re
from pathlib import Path

import folder_paths

from ..identity.analyzer import find_packs

FOLDER = "dynamicid"
INSIGHTFACE = "insightface"
IDENTITIES = "identities"
NONE = "None"

_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')


def register() -> None:
    """Tell the host about `models/dynamicid`; folders from extra_model_paths.yaml stay and come first."""
    for folder in (FOLDER, INSIGHTFACE):
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(_SUFFIXES))


def face_packs() -> dict[str, Path]:
    """Return insightface's packs by name, from models/insightface and its `models`."""
    return find_packs([Path(folder) for folder in folder_paths.get_folder_paths(INSIGHTFACE)])


def face_pack_path(name: str) -> Path:
    """Return the folder of a pack named as in `face_packs`. Raises FileNotFoundError when there is none."""
    packs = face_packs()
    if name not in packs:
        raise FileNotFoundError(
            f"There is no face pack {name!r} in models/insightface. Put its folder into models there."
        )
    return packs[name]


def vision_path(name: str) -> Path:
    """Return the full path of a file in models/clip_vision. Raises FileNotFoundError when there is none."""
    return Path(folder_paths.get_full_path_or_raise("clip_vision", name))


def adapter_files() -> list[str]:
    """Return the names of all weight files in models/dynamicid, identities left out."""
    return [name for name in folder_paths.get_filename_list(FOLDER) if Path(name).parts[0] != IDENTITIES]


def adapter_path(name: str) -> Path:
    """Return the full path of a file named as in `adapter_files`. Raises FileNotFoundError when there is none."""
    return _full_path(name, f"models/{FOLDER}", "Put the file there, then press R to refresh the list.")


def identity_names() -> list[str]:
    """Return the names of all saved identities, without the suffix, with / between folders."""
    files = (Path(name) for name in folder_paths.get_filename_list(FOLDER))
    return [
        file.relative_to(IDENTITIES).with_suffix("").as_posix()
        for file in files
        if file.parts[0] == IDENTITIES and file.suffix == ".safetensors"
    ]


def identity_path(name: str) -> Path:
    """Return the full path of a saved identity.

    Raises:
        FileNotFoundError: no such identity.
        ValueError: the name leads out of the identities folder.
    """
    relative = f"{IDENTITIES}/{_checked_name(name)}.safetensors"
    return _full_path(relative, f"models/{FOLDER}/{IDENTITIES}", "Save the identity with Save Identity first.")


def new_identity_path(name: str) -> Path:
    """Return where an identity of this name is to be saved: in the first folder registered for DynamicID.

    Raises:
        ValueError: the name leads out of the identities folder or can't be a file's name.
    """
    root = Path(folder_paths.get_folder_paths(FOLDER)[0]) / IDENTITIES
    path = root / f"{_checked_name(name)}.safetensors"
    # A link inside the folder may still lead out of it.
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"The name {name!r} leads out of models/{FOLDER}/{IDENTITIES}. Choose a plain name.")
    return path


def _checked_name(name: str) -> str:
    """Return the name without spaces around it, if it stays inside its folder on every operating system."""
    name = name.strip()
    parts = name.split("/")
    if not name or _FORBIDDEN.search(name) or any(part.strip(" .") != part or not part for part in parts):
        raise ValueError(
            f"An identity's name must be a plain file name such as 'alice' or 'friends/alice', got {name!r}. "
            'Leave out .., \\ : * ? " < > | and dots or spaces at the ends.'
        )
    return name


def _full_path(name: str, folder: str, advice: str) -> Path:
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise FileNotFoundError(f"There is no file {name!r} in {folder}. {advice}")
    return Path(path)
