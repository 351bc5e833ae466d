"""Names of saved identities, and what a killed Save Identity leaves."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import folder_paths
import pytest
import torch
from dynamicid_pack.dynamicid_core.host import folders
from dynamicid_pack.dynamicid_core.identity.identity import Identity, save_identity
from dynamicid_pack.nodes.identities import LoadIdentity, SaveIdentity


def person() -> Identity:
    return Identity(torch.ones(4, 16), torch.zeros(4, 16))


@pytest.fixture
def identities(tmp_path: Path) -> Iterator[Path]:
    """The folder of identities, in place of the host's."""
    known = {folders.FOLDER: ([str(tmp_path)], {".safetensors"})}
    with patch.dict(folder_paths.folder_names_and_paths, known), patch.dict(folder_paths.filename_list_cache):
        folder_paths.filename_list_cache.pop(folders.FOLDER, None)
        yield tmp_path / "identities"


REFUSED = {
    "too long": ("a" * 300, "at most 180 bytes"),
    "too long in bytes": ("愛" * 90, "at most 180 bytes"),
    "too deep": ("/".join("abc" for _ in range(100)), "at most 180 bytes"),
    "a surrogate": ("caf\udce9", r"'caf\udce9'"),
    "a turn of direction": ("evil\u202egnp", r"'evil\u202egnp'"),
    "an invisible mark": ("ana\u200b", r"'ana\u200b'"),
    "a control character": ("ana\x7f", r"'ana\x7f'"),
    "a no-break space": ("ana\xa0b", r"'ana\xa0b'"),
    "a folder that blocks a person": ("x.safetensors/y", "can't end in .safetensors"),
    "a folder that blocks a person, in capitals": ("x.SafeTensors/y", "can't end in .safetensors"),
    "CON": ("CON", "a device on Windows"),
    "nul": ("nul", "a device on Windows"),
    "COM1 as a folder": ("COM1/ana", "a device on Windows"),
    "a device with a dot": ("aux.portrait", "a device on Windows"),
    "LPT²": ("lpt²", "a device on Windows"),
    "a dot at the end": ("ana.", "a plain file name"),
    "a space at a folder's end": ("friends /ana", "a plain file name"),
}
"""Case -> name, what the message must say."""


@pytest.mark.parametrize("case", REFUSED)
def test_names_that_a_system_can_not_keep_or_show(case: str, identities: Path) -> None:
    name, says = REFUSED[case]
    with pytest.raises(ValueError, match=r"name|folder") as caught:
        SaveIdentity.execute(person(), name)
    message = str(caught.value)
    assert says in message and message.isprintable() and len(message) < 500
    assert not list(identities.rglob("*"))


@pytest.mark.parametrize(
    "name", ["alice", "friends/alice", "größe", "愛麗絲", "a.b-c_d (2)", "console", "com10", "x.safetensors"]
)
def test_names_that_are_kept(name: str, identities: Path) -> None:
    (saved,) = SaveIdentity.execute(person(), name).args
    assert folders.identity_names() == [name]
    assert LoadIdentity.execute(name).args[0].name == saved.name == name.split("/")[-1]


def test_files_that_were_saved_before_under_such_names_still_load(identities: Path) -> None:
    for name in ("con", "a" * 200, "ana\u200b"):
        save_identity(person(), identities / f"{name}.safetensors")
        assert isinstance(LoadIdentity.execute(name).args[0], Identity)


def test_a_name_that_a_folder_has(identities: Path) -> None:
    (identities / "ana.safetensors").mkdir(parents=True)
    for overwrite in (True, False):
        with pytest.raises(ValueError, match="taken by a folder"):
            SaveIdentity.execute(person(), "ana", overwrite)


def test_a_folder_of_the_name_of_a_file(identities: Path) -> None:
    identities.mkdir()
    (identities / "friends").touch()
    with pytest.raises((ValueError, OSError), match="could not be written") as caught:
        SaveIdentity.execute(person(), "friends/ana")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", ["listed", "saved"])
def test_what_a_killed_save_left_is_gone_with_the_next_list_or_save(way: str, identities: Path) -> None:
    save_identity(person(), identities / "ana.safetensors")
    with (
        patch("pathlib.Path.unlink"),
        pytest.raises(KeyboardInterrupt),
        patch("os.fsync", side_effect=KeyboardInterrupt),
    ):
        save_identity(person(), identities / "bob.safetensors")
    (part,) = identities.glob("*.part")
    if way == "listed":
        assert folders.identity_names() == ["ana"]
    else:
        SaveIdentity.execute(person(), "carl")
    assert not part.exists()
