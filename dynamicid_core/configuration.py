"""Configuration files of training, data building and evaluation: JSON, checked by pydantic before anything is loaded.

pydantic belongs to the extra `training`; nothing that the nodes import may import this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo


class ConfigModel(BaseModel):
    """An immutable set of options; names that it doesn't have are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _from_folder_of_file(value: Any, info: ValidationInfo) -> Any:
    folder = (info.context or {}).get("folder")
    return str(folder / value) if folder is not None and isinstance(value, str) else value


ConfigPath = Annotated[Path, BeforeValidator(_from_folder_of_file)]
"""A path that is taken from the configuration file's folder where it is relative."""

Config = TypeVar("Config", bound=ConfigModel)


def read_config(path: Path, kind: type[Config], renamed: Mapping[str, str] | None = None) -> Config:
    """Read a JSON file as a `kind`.

    Args:
        renamed: option names of earlier versions and the names that they have now.

    Raises:
        ValueError: one line for each option that is unknown (with its new name), missing, or of a wrong value.
    """
    with plain_errors(f"{path}: ", renamed):
        return kind.model_validate_json(path.read_bytes(), strict=True, context={"folder": path.parent})


@contextmanager
def plain_errors(prefix: str = "", renamed: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turn pydantic's errors into a ValueError of one line for each option, see `read_config`.

    Args:
        prefix: what each line begins with.
    """
    try:
        yield
    except ValidationError as error:
        raise ValueError("\n".join(prefix + line for line in _lines(error, renamed or {}))) from error


def _lines(error: ValidationError, renamed: Mapping[str, str]) -> list[str]:
    lines = []
    for detail in error.errors(include_url=False):
        name = ".".join(str(part) for part in detail["loc"])
        leaf = str(detail["loc"][-1]) if detail["loc"] else ""
        if detail["type"] == "extra_forbidden" and leaf in renamed:
            lines.append(f"{name} is called {renamed[leaf]} now: rename it.")
        elif detail["type"] == "extra_forbidden":
            lines.append(f"{name} is unknown: remove it or correct its name.")
        elif detail["type"] == "missing":
            lines.append(f"{name} is missing.")
        else:
            lines.append(f"{name or 'the file'}: {detail['msg']}, got {detail['input']!r:.200}.")
    return lines
