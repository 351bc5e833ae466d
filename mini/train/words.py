"""Captions as tokens: CLIP's own tokenizer, and the few of its tokens that captions use."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from ..networks import TEXT
from ..world.caption import ADJECTIVES, CLOTHES_COLORS, COUNTS, GARMENTS, PLACES, TILTS, VIEWS, WHERE, parse_caption
from . import comfyui

LENGTH: int = TEXT["max_position_embeddings"]
SPOKEN_OF = 1 + len(WHERE[3])  # the picture as a whole or somebody alone; then whoever stands left, middle, right

# What a caption may say, and all that it can be: of the picture, and of the first, second and third person in it.
OF_ALL: dict[str, Sequence[str | int]] = {"place": PLACES, "count": tuple(COUNTS)}
OF_ONE: dict[str, Sequence[str | int]] = {
    "colour": CLOTHES_COLORS,
    "garment": GARMENTS,
    "expression": tuple(ADJECTIVES),
    "tilt": TILTS,
    "view": tuple(VIEWS),
}
SAYINGS = OF_ALL | {f"{kind}_{person}": choices for person in range(3) for kind, choices in OF_ONE.items()}


def labels_of(captions: Sequence[str]) -> dict[str, Tensor]:
    """Return for each of SAYINGS (n,) int64: what each caption says among the choices, -1 where it is silent."""
    labels = {name: torch.full((len(captions),), -1) for name in SAYINGS}
    for row, spec in enumerate(map(parse_caption, captions)):
        says = {"place": spec.place, "count": len(spec.people)}
        says |= {f"{kind}_{i}": getattr(look, kind) for i, look in enumerate(spec.people) for kind in OF_ONE}
        for name, value in says.items():
            if value is not None:
                labels[name][row] = SAYINGS[name].index(value)
    return labels


class Words:
    """CLIP's tokenizer, and its tokens numbered anew from 0: `ids` those that captions use, `unknown` all others."""

    def __init__(self) -> None:
        from transformers import CLIPTokenizer

        self._tokenizer = CLIPTokenizer.from_pretrained(str(comfyui.folder() / "comfy" / "sd1_tokenizer"))
        phrases = [*COUNTS.values(), *WHERE[3], *CLOTHES_COLORS, *GARMENTS, *PLACES, *ADJECTIVES, *ADJECTIVES.values()]
        phrases += [*TILTS, *VIEWS, "in a expression", "the expression is", ","]
        start, *_, end = self._tokenizer("")["input_ids"]
        used = {token for phrase in phrases for token in self._tokenizer(phrase)["input_ids"]}
        self.ids = sorted(used | {start, end})
        self._number = {token: number for number, token in enumerate(self.ids)}
        self.start, self.end, self.unknown = self._number[start], self._number[end], len(self.ids)

    @cache  # noqa: B019 (one Words a process)
    def numbers(self, caption: str) -> tuple[int, ...]:
        """Return a caption's tokens, at most LENGTH; clauses without room are left out, from the last."""
        inner = [self._number.get(token, self.unknown) for token in self._tokenizer(caption)["input_ids"][1:-1]]
        if len(inner) > LENGTH - 2:
            return self.numbers(caption.rpartition(", ")[0])
        return (self.start, *inner, self.end)

    def batch(self, captions: Sequence[str]) -> Tensor:
        """Return token numbers (n, LENGTH) int64, filled up with the end token as SD1.5's are."""
        rows = torch.full((len(captions), LENGTH), self.end)
        for row, caption in zip(rows, captions, strict=True):
            numbers = self.numbers(caption)
            row[: len(numbers)] = torch.tensor(numbers)
        return rows

    def spoken_of(self, tokens: Tensor) -> Tensor:
        """(n, LENGTH) of whom each token speaks, below SPOKEN_OF: of the one whose place was named last before it."""
        at = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        named = torch.zeros_like(tokens)
        for place, where in enumerate(WHERE[3], start=1):
            clause = torch.tensor(self.numbers(where)[1:-1], device=tokens.device)
            ends = (tokens.unfold(1, len(clause), 1) == clause).all(2)
            named[:, len(clause) - 1 :] += place * ends
        last = torch.where(named > 0, at, 0).cummax(1).values
        return named.gather(1, last)


@cache
def words() -> Words:
    return Words()
