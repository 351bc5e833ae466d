"""The sample lists of three public benchmarks, read as their own scripts read them.

    multiid-bench         v202.json, v200_single.json, v200_m.json, as `hf2bench.py` of WithAnyone writes them beside
                          the folders of the same names; or a folder of samples, each with `meta.json`, `ref_*.jpg` and
                          `ori.jpg`, as `infer_withanyone.py` writes them
    xversebench           XVerseBench_single.json, XVerseBench_multi.json of XVerse's `eval/tools`
    multihuman-testbench  multihuman_metadata.json of MultiHuman-Testbench's `data`

Nothing is downloaded: prompts, references and true pictures are read from where they lie.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ListedSample:
    """One prompt of a list.

    Attributes:
        name: that can be a file's.
        references: an image of each person.
        ground_truth: a true picture of the sample, if the benchmark has one.
    """

    name: str
    prompt: str
    references: tuple[Path, ...]
    ground_truth: Path | None = None


def read_sample_list(kind: str, path: Path, images: Path | None = None) -> list[ListedSample]:
    """Read a benchmark's list; samples without a person are left out.

    Args:
        kind: one of KINDS.
        path: the list, or with multiid-bench a folder of samples.
        images: the folder that the list's paths start from; by default where the benchmark's own scripts have it.

    Raises:
        ValueError: another kind, or a file that is not laid out like the benchmark's, with the place.
        OSError: an image, or the list, can't be read.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected one of {', '.join(KINDS)}, got {kind!r}.")
    samples = [sample for sample in KINDS[kind](path, images) if sample.references]
    if not samples:
        raise ValueError(f"{path} lists no sample with a person. Is it a list of {kind}?")
    for image in (image for sample in samples for image in (*sample.references, sample.ground_truth) if image):
        if not image.is_file():
            raise FileNotFoundError(f"{path} names {image}, which is not there. Name the images' folder: --images.")
    return samples


def _multiid_bench(path: Path, images: Path | None) -> Iterator[ListedSample]:
    """MultiID-Bench. `prompt`; `image_paths`, a reference each; `ori_img_path`, the true picture."""
    if path.is_dir():
        yield from _multiid_folder(path)
        return
    own = path.with_suffix("")
    root = images or (own / "untar" if (own / "untar").is_dir() else own)
    for where, entry in _entries(path):
        references = [root / _text(name, where) for name in _list(entry, "image_paths", where)]
        truth = _text(_get(entry, "ori_img_path", where), where)
        name = re.sub(r"[^\w-]+", "-", str(Path(truth).with_suffix("")), flags=re.ASCII)
        yield ListedSample(name, _text(_get(entry, "prompt", where), where), tuple(references), root / truth)


def _multiid_folder(path: Path) -> Iterator[ListedSample]:
    """A folder for each sample: `meta.json` with `prompt`, `ref_0.jpg` or `ref_1.jpg` and on, `ori.jpg`."""
    for meta in sorted(path.glob("*/meta.json")):
        prompt = _text(_get(_json(meta), "prompt", str(meta)), str(meta))
        references = sorted(meta.parent.glob("ref_*.jpg"), key=lambda image: (len(image.stem), image.stem))
        truth = meta.with_name("ori.jpg")
        yield ListedSample(meta.parent.name, prompt, tuple(references), truth if truth.is_file() else None)


def _xversebench(path: Path, images: Path | None) -> Iterator[ListedSample]:
    """XVerseBench. `index`, `prompt`; `modulation[0].src_inputs[].image_path`: people lie in a folder `human`."""
    root = images or path.resolve().parent.parent.parent  # the list lies in eval/tools
    for where, entry in _entries(path):
        modulation = _list(entry, "modulation", where)
        inputs = _list(modulation[0], "src_inputs", f"{where}.modulation[0]") if modulation else []
        names = [_text(_get(one, "image_path", where), where) for one in inputs]
        people = tuple(root / name for name in names if Path(name).parent.name == "human")
        prompt = _text(_get(entry, "prompt", where), where)
        yield ListedSample(f"{int(_get(entry, 'index', where)):04}", prompt, people)


def _multihuman_testbench(path: Path, images: Path | None) -> Iterator[ListedSample]:
    """MultiHuman-Testbench. `people`, an image each; `prompt`. A sample is called by its place in the list."""
    root = images or path.resolve().parent.parent  # the list lies in data
    for number, (where, entry) in enumerate(_entries(path)):
        people = tuple(root / _text(name, where) for name in _list(entry, "people", where))
        yield ListedSample(f"{number:04}", _text(_get(entry, "prompt", where), where), people)


KINDS: dict[str, Callable[[Path, Path | None], Iterator[ListedSample]]] = {
    "multiid-bench": _multiid_bench,
    "xversebench": _xversebench,
    "multihuman-testbench": _multihuman_testbench,
}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of each entry of a file that holds a list."""
    entries = _json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of samples, got {type(entries).__name__}.")
    yield from ((f"{path}[{number}]", entry) for number, entry in enumerate(entries))


def _get(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise ValueError(f"{where}: expected an object with {key!r}, got {json.dumps(entry)[:100]}.")
    return entry[key]


def _list(entry: Any, key: str, where: str) -> list[Any]:
    value = _get(entry, key, where)
    if not isinstance(value, list):
        raise ValueError(f"{where}.{key}: expected a list, got {json.dumps(value)[:100]}.")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected text, got {json.dumps(value)[:100]}.")
    return value
