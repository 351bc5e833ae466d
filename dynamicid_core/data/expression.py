"""Read which expression a face shows from the image's sidecar or its name."""

import re
from pathlib import Path, PurePosixPath

from ..imr.motion import EXPRESSION_WORDS

_PROMPT = re.compile(r"\bin an? ([a-z]+) expression\b|\bexpression is ([a-z]+)\b")
_MAX_LENGTH = 4096  # characters of a sidecar that are read


def sidecar_text(path: Path) -> str | None:
    """Return the beginning of a text file, without blanks around it; None where there is no file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_LENGTH).strip()
    except OSError:
        return None


def from_sidecar(path: Path) -> str | None:
    """Return one of EXPRESSIONS, as a face prompt in a file says it; None where there is no file or it says none."""
    return from_prompt(sidecar_text(path) or "")


def from_prompt(prompt: str) -> str | None:
    """Return one of EXPRESSIONS for "in a happy expression, ..." or "the expression is happy, ...", else None."""
    match = _PROMPT.search(prompt.lower())
    return EXPRESSION_WORDS.get(match[1] or match[2]) if match else None


def from_name(path: str) -> str | None:
    """Return the expression in a file's name, or else in the name of the nearest folder that has one.

    Args:
        path: with /, without the person's folder. A name with words of two expressions says none.
    """
    place = PurePosixPath(path)
    for name in (place.stem, *reversed(place.parts[:-1])):
        labels = {EXPRESSION_WORDS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in EXPRESSION_WORDS}
        if labels:
            return labels.pop() if len(labels) == 1 else None
    return None
