"""The names in the code are the field's: what was renamed does not come back."""

import io
import re
import tokenize
from collections.abc import Iterable, Iterator

from dynamicid_pack.tests.support import ROOT

WORDS = {
    "adopted": "snapshot",
    "analyse": "analyze",
    "analyser": "analyzer",
    "apartness": "diversity",
    "Ask": "CaptionSpec",
    "casting": "assignment",
    "clip_norm": "max_grad_norm",
    "CompareFaces": "WhoIsWho",
    "context_width": "context_dim",
    "Dropped": "Rejected",
    "examine": "analyze",
    "Eyes": "CachedJudge",
    "Hand": "Worker",
    "hands_on_ray": "ray_executor",
    "head_width": "dim_head",
    "least_alike": "min_similarity",
    "Look": "PersonSpec",
    "optimiser": "optimizer",
    "own_hand": "local_executor",
    "quantise": "quantize",
    "rasterise": "rasterize",
    "reached": "called_blocks",
    "Recall": "LRUCache",
    "Recipe": "TrainingConfig",
    "settle": "select",
    "Settled": "SelectedPerson",
    "Site": "TransformerBlock",
    "Square": "CropBox",
    "widen": "dequantize",
    "Work": "Executor",
    "Workshop": "TrainContext",
}
"""A name that the code no longer has -> what it is called. Add a line for a name that is gone."""

VAGUE = {
    "apart": "merge_distance, an index, ...",
    "asked": "requested, specs, labels, ...",
    "found": "detections, matches, result, ...",
    "nobody": "negative, unconditional, None",
    "worn": "degraded, or the dropout's probability",
}
"""A name that says how something came, not what it is -> what it may be called. Tests may have some."""

VAGUE_IN_TESTS = ("found", "worn")
"""Those that tests are free of, too."""

PRODUCT = ("nodes", "dynamicid_core", "mini")
FOLDERS = ("nodes", "dynamicid_core", "mini", "benchmarks", "devtools", "tests")


def names(words: Iterable[str], folders: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield `file:line` and name for each of these names in the code; comments and strings don't count."""
    wanted = re.compile(rf"\b(?:{'|'.join(words)})\b")
    files = [ROOT / "__init__.py", ROOT / "dev.py"]
    files += [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in files:
        text = path.read_text("utf-8")
        if wanted.search(text) is None:
            continue
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and token.string in words:
                yield f"{path.relative_to(ROOT)}:{token.start[0]}", token.string


def test_names_are_the_fields() -> None:
    assert {f"{place}: {name}, say {WORDS[name]}" for place, name in names(WORDS, FOLDERS)} == set()


def test_names_say_what_things_are() -> None:
    places = [*names(VAGUE, PRODUCT), *names(VAGUE_IN_TESTS, ["tests"])]
    assert {f"{place}: {name}, say {VAGUE[name]}" for place, name in places} == set()
