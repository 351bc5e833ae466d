"""Where the pack's files lie: `models/dynamicid`, its `identities` and `expression`, through the host's folder_paths.

IP-Adapter FaceID's files are found where other packs keep them, too: in `models/ipadapter`.
"""

import os
import re
from pathlib import Path

import folder_paths

from ..files import remove_stale_parts
from ..identity.analyzer import find_packs
from ..messages import quoted
from ..tensor_file import kind_of

FOLDER = "dynamicid"
INSIGHTFACE = "insightface"
IPADAPTER = "ipadapter"
IDENTITIES = "identities"
EXPRESSION = "expression"
NONE = "None"

_SUFFIX = ".safetensors"  # of an identity
_SUFFIXES = {_SUFFIX, ".bin", ".pt", ".pth", ".ckpt"}
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
# names of devices on Windows, whatever comes after a dot
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I)
_LONGEST_NAME = 180  # bytes in UTF-8: a file's name may have 255, a path on Windows 260 characters


def register() -> None:
    """Tell the host about `models/dynamicid`; folders from extra_model_paths.yaml stay and come first."""
    for folder in (FOLDER, INSIGHTFACE):
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(_SUFFIXES))
    theirs = os.path.join(folder_paths.models_dir, IPADAPTER)
    if IPADAPTER not in folder_paths.folder_names_and_paths and os.path.isdir(theirs):
        folder_paths.folder_names_and_paths[IPADAPTER] = ([theirs], set(_SUFFIXES))


def face_packs() -> dict[str, Path]:
    """Return insightface's packs by name, from models/insightface and its `models`."""
    return find_packs([Path(folder) for folder in folder_paths.get_folder_paths(INSIGHTFACE)])


def face_pack_path(name: str) -> Path:
    """Return the folder of a pack named as in `face_packs`. Raises FileNotFoundError when there is none."""
    packs = face_packs()
    if name not in packs:
        raise FileNotFoundError(
            f"There is no face pack {quoted(name)} in models/insightface. Put its folder into models there."
        )
    return packs[name]


def expression_models() -> dict[str, Path]:
    """Return the expression models in models/dynamicid/expression by name, with / between folders."""
    models: dict[str, Path] = {}
    for folder in folder_paths.get_folder_paths(FOLDER):
        root = Path(folder) / EXPRESSION
        for path in sorted(path for path in root.rglob("*.onnx") if path.is_file()):
            models.setdefault(path.relative_to(root).as_posix(), path)
    return models


def expression_path(name: str) -> Path:
    """Return the file of an expression model named as in `expression_models`.

    Raises FileNotFoundError when there is none.
    """
    models = expression_models()
    if name not in models:
        raise FileNotFoundError(
            f"There is no expression model {quoted(name)} in models/{FOLDER}/{EXPRESSION}. Put the ONNX file there, "
            "then press R to refresh the list; or choose None."
        )
    return models[name]


def vision_path(name: str) -> Path:
    """Return the full path of a file in models/clip_vision. Raises FileNotFoundError when there is none."""
    return Path(folder_paths.get_full_path_or_raise("clip_vision", name))


def adapter_files() -> list[str]:
    """Return the names of all weight files in models/dynamicid, identities left out, then FaceID's as ipadapter/..."""
    ours = [name for name in folder_paths.get_filename_list(FOLDER) if Path(name).parts[0] != IDENTITIES]
    theirs = folder_paths.get_filename_list(IPADAPTER) if IPADAPTER in folder_paths.folder_names_and_paths else []
    return ours + [f"{IPADAPTER}/{name}" for name in theirs if "faceid" in name.lower().replace("-", "")]


def adapter_path(name: str) -> Path:
    """Return the full path of a file named as in `adapter_files`. Raises FileNotFoundError when there is none."""
    folder, _, own_name = name.partition("/")
    if folder == IPADAPTER and IPADAPTER in folder_paths.folder_names_and_paths:
        path = folder_paths.get_full_path(IPADAPTER, own_name)
        if path is not None:
            return Path(path)
    return _full_path(name, f"models/{FOLDER}", "Put the file there, then press R to refresh the list.")


def identity_names() -> list[str]:
    """Return the names of all saved identities, without the suffix, with / between folders."""
    _remove_stale_parts()
    files = (Path(name) for name in folder_paths.get_filename_list(FOLDER))
    return [
        file.relative_to(IDENTITIES).with_suffix("").as_posix()
        for file in files
        if file.parts[0] == IDENTITIES and file.suffix == _SUFFIX
    ]


def identity_path(name: str) -> Path:
    """Return the full path of a saved identity.

    Raises:
        FileNotFoundError: no such identity.
        ValueError: the name leads out of the identities folder, or to something that is no file.
    """
    relative = f"{IDENTITIES}/{_inside(name)}{_SUFFIX}"
    return _full_path(relative, f"models/{FOLDER}/{IDENTITIES}", "Save the identity with Save Identity first.")


def new_identity_path(name: str) -> Path:
    """Return where an identity of this name is to be saved: in the first folder registered for DynamicID.

    Raises:
        ValueError: the name leads out of the identities folder, can't be a file's name on every operating system, or
            is taken by something that is no file.
    """
    _remove_stale_parts()
    root = Path(folder_paths.get_folder_paths(FOLDER)[0]) / IDENTITIES
    path = root / f"{_portable(name)}{_SUFFIX}"
    # A link inside the folder may still lead out of it.
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"The name {quoted(name)} leads out of models/{FOLDER}/{IDENTITIES}. Choose a plain name.")
    if path.exists() and (kind := kind_of(path)):
        raise ValueError(f"The name {quoted(name)} is taken by {kind} in models/{FOLDER}/{IDENTITIES}. Choose another.")
    return path


def _remove_stale_parts() -> None:
    for folder in folder_paths.get_folder_paths(FOLDER):
        remove_stale_parts(Path(folder) / IDENTITIES, _SUFFIX)


def _inside(name: str) -> str:
    """Return the name without spaces around it, if it stays inside its folder on every operating system."""
    stripped = name.strip()
    parts = stripped.split("/")
    if not stripped or _FORBIDDEN.search(stripped) or any(part.strip(" .") != part or not part for part in parts):
        raise ValueError(
            f"An identity's name must be a plain file name such as 'alice' or 'friends/alice', got {quoted(stripped)}. "
            'Leave out .., \\ : * ? " < > | and dots or spaces at the ends.'
        )
    return stripped


def _portable(name: str) -> str:
    """Return the name without spaces around it, if every operating system can keep, show and find a file of it."""
    name = _inside(name)
    folders = name.split("/")[:-1]
    if not name.isprintable():
        raise ValueError(
            f"An identity's name must be letters that print, got {quoted(name)}. Leave out line breaks, marks that "
            "turn the direction of writing, and other characters that can't be seen."
        )
    if len(name.encode("utf-8")) > _LONGEST_NAME:
        raise ValueError(
            f"An identity's name can have at most {_LONGEST_NAME} bytes, folders included, got "
            f"{len(name.encode('utf-8')):,}: {quoted(name[:60])}. Choose a shorter one."
        )
    if any(map(_DEVICES.fullmatch, name.split("/"))):
        raise ValueError(
            f"An identity's name can't be that of a device on Windows, such as CON, NUL or COM1, got {quoted(name)}. "
            "Choose another."
        )
    if any(folder.lower().endswith(_SUFFIX) for folder in folders):
        raise ValueError(
            f"A folder of identities can't end in {_SUFFIX}, got {quoted(name)}: it would stand where the file of an "
            "identity belongs. Choose another."
        )
    return name


def _full_path(name: str, folder: str, advice: str) -> Path:
    path = folder_paths.get_full_path(FOLDER, name)
    if path is not None:
        return Path(path)
    # the host takes whatever is no file, such as a named pipe, for missing
    for root in folder_paths.get_folder_paths(FOLDER):
        other = Path(root) / name
        if other.exists() and (kind := kind_of(other)):
            raise ValueError(f"{quoted(name)} in {folder} is {kind}, expected a file. Choose another.")
    raise FileNotFoundError(f"There is no file {quoted(name)} in {folder}. {advice}")
