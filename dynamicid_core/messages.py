"""What a file, a graph or a user says, put into a message: one line that any log can write."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator
from pathlib import Path

LIMIT = 200  # characters of what is quoted

_QUOTED = reprlib.Repr()
_QUOTED.maxstring = _QUOTED.maxother = LIMIT


def printable(text: str, limit: int | None = LIMIT) -> str:
    r"""Return a text with every character that does not print (newlines, \x1b, \u202e, lone surrogates) escaped.

    Args:
        limit: characters, beyond which the rest is left out; None where the text's length is known to be small.
    """
    # one character more tells whether something was left out; what is left out is never looked at
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit and limit + 1]
    )
    return shown if limit is None or len(shown) <= limit else f"{shown[: limit - 3]}..."


def quoted(value: object) -> str:
    """Return a value as Python writes it, such as `'alice'`, printable and at most LIMIT characters long."""
    try:
        return printable(_QUOTED.repr(value))
    except ValueError:  # Python writes no whole number of over 4300 digits
        return f"a {type(value).__name__} of very large numbers"


def shown(path: Path) -> str:
    """Return a path as it is, but printable."""
    return printable(str(path), limit=None)


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Put a file's path before the message of whatever ValueError or OSError is raised inside."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from error
    except OSError as error:
        raise OSError(f"{shown(path)}: {error.strerror or error}") from error
