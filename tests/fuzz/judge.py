"""How a case of the fuzzer is drawn, limited and judged.

A family is a function that draws a case from a generator, and a door that takes it, such as a node's `execute`. The
case is right where the door takes it, or refuses it by an error of ours: one line that prints, raised by a statement
of the pack. It may take SECONDS and BYTES beyond its file, and start no process.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from ..support import ROOT

SECONDS = 10.0
BYTES = 500 * 2**20
MARK = "ran"
"""The file that a case's payload makes in its folder, if it ever runs."""

_LONGEST = 1500  # characters of a message: a path of the system's, and what is quoted of a file
_STARTS = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "socket.connect", "subprocess")


@dataclass(frozen=True)
class Case:
    """What the door gets.

    Attributes:
        words: what is odd about it, for people.
        arguments: handed to the door.
        size: bytes of its files, which may lie in memory beside BYTES.
    """

    words: str
    arguments: tuple[Any, ...]
    size: int = 0


@dataclass(frozen=True)
class Family:
    """One kind of hostile input.

    Attributes:
        draw: makes a case; whatever is left to chance comes from the generator. The folder is the case's own.
        door: takes the case's arguments. It may assert what must hold of those that it does not refuse.
    """

    name: str
    draw: Callable[[Random, Path], Case]
    door: Callable[..., object]


def judge(family: Family, number: int, folder: Path) -> str | None:
    """Run case `number` of a family; return what is wrong with how it ended, None where nothing is."""
    folder.mkdir()
    case = family.draw(Random(f"{family.name} {number}"), folder)
    print(f"{family.name} {number}: {case.words[:60]}")  # pytest shows it where the case never ends
    started, before, begun = _watch(), _peak_after_reset(), time.process_time()
    try:
        family.door(*case.arguments)
        complaint = None
    except Exception as error:  # which it was is what is judged
        complaint = _complaint(error)
    # of the processor: what else the machine does must not fail a case, and one that waits never ends
    seconds, peak = time.process_time() - begun, _peak() - before - case.size
    _watched.clear()
    if started or (folder / MARK).exists():
        complaint = f"it ran something: {started or MARK}"
    elif seconds > SECONDS:
        complaint = f"it took {seconds:.1f} s"
    elif peak > BYTES:
        complaint = f"it took {peak / 2**20:.0f} MiB beyond its {case.size / 2**20:.0f}"
    return f"{family.name} {number} ({case.words}): {complaint}" if complaint else None


def _complaint(error: Exception) -> str | None:
    message, name = str(error), type(error).__name__
    frame = error.__traceback__
    assert frame is not None
    while frame.tb_next is not None:
        frame = frame.tb_next
    file = frame.tb_frame.f_code.co_filename
    statement = linecache.getline(file, frame.tb_lineno).strip()
    where = f"{file}:{frame.tb_lineno}"
    if isinstance(error, AssertionError):
        return f"accepted, but {message or statement}"
    if not isinstance(error, (ValueError, OSError)):
        return f"raw {name} from {where}: {message[:500]!r}"
    if not Path(file).is_relative_to(ROOT) or not statement.startswith("raise "):
        return f"not the pack's own {name}, from {where} ({statement}): {message[:500]!r}"
    if not message.isprintable() or not 20 <= len(message) <= _LONGEST:
        return f"no clear line ({len(message)} characters) from {where}: {message[:500]!r}"
    # the host logs all of it, and its log ends with what it can't encode
    logged = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if not logged.isascii() and logged.encode("utf-8", "replace") != logged.encode("utf-8", "surrogatepass"):
        return f"what the host would log holds lone surrogates: {logged[:500]!r}"
    return None


# What the process starts while a case is judged: an audit hook can't be taken off again.

_watched: list[list[str]] = []


def _hook(event: str, _: object) -> None:
    if _watched and event.startswith(_STARTS):
        _watched[0].append(event)


sys.addaudithook(_hook)


def _watch() -> list[str]:
    _watched[:] = [[]]
    return _watched[0]


def _peak_after_reset() -> int:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Return the most memory that this process has held since the reset, in bytes; 0 where Linux does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
