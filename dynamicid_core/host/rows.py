"""What each row of the UNet's batch is: the side of guidance that it is drawn for, and the frame that it shows."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Each row of a batch is drawn with a person's tokens (POSITIVE) or with the face encoder's negative tokens.
POSITIVE, NEGATIVE = 0, 1


class Rows(NamedTuple):
    """The rows of a batch.

    roles:   POSITIVE or NEGATIVE for each.
    frames:  number of the frame that each shows, from 0, in the whole batch that is sampled.
    """

    roles: tuple[int, ...]
    frames: tuple[int, ...]

    def take(self, indices: Sequence[int]) -> Rows:
        """Return the rows of these numbers, in this order."""
        return Rows(tuple(self.roles[i] for i in indices), tuple(self.frames[i] for i in indices))


class Guidance:
    """What a sampling run is guided by, from which the rows of its calls are told.

    A batch is made of equal chunks, one for each conditioning, as the host lists them. Packs that tile lay them out in
    other ways without a word, so the text that a row reads tells its side. Where it can't, the list does.
    """

    def __init__(
        self, conds: Mapping[str, Sequence[Mapping[str, Any]] | None] | None = None, batch: int | None = None
    ) -> None:
        """Read the guider's conditionings.

        Args:
            conds: by name, each with a "uuid" of its own and its text (texts, tokens, channels); those with "negative"
                in their name ("negative", "empty_negative_prompt") are the negative ones. Where none has, number 1 is
                negative: its place in the plain CFG guider's list.
            batch: rows of the latent that is sampled.
        """
        groups = {name: group or () for name, group in (conds or {}).items()}
        named = any("negative" in name for name in groups)
        self._sides = {
            cond.get("uuid"): NEGATIVE if "negative" in name else POSITIVE
            for name, group in groups.items()
            for cond in group
            if named
        }
        self._named = named
        self._texts = [(cond.get("uuid"), text) for group in groups.values() for cond in group for text in _texts(cond)]
        self._batch = batch
        self._known: dict[Any, tuple[int, ...]] = {}

    def rows(self, count: int, context: Tensor | None, options: Mapping[str, Any]) -> Rows:
        """Return what the rows of one call of the UNet are.

        Texts are compared (which reads back from the GPU) once in a run for each list of conditionings and shape.

        Args:
            count: b, of the call.
            context: (b, tokens, channels) as the UNet gets it; None: the host's list tells alone.
            options: the host's transformer_options.
        """
        chunks = tuple(options.get("cond_or_uncond") or (0,))
        ids = tuple(options.get("uuids") or ())
        window = _window(options)
        per_chunk = len(window) if window and count % len(window) == 0 else self._batch
        if not per_chunk or count % per_chunk:
            per_chunk = max(count // len(chunks), 1)
        key = (chunks, ids, per_chunk, count, None if context is None else context.shape)
        roles = self._known.get(key)
        if roles is None:
            of_chunks = self._roles_of_chunks(chunks, ids)
            roles = _filled(self._read(count, context, chunks, ids), of_chunks, count, per_chunk)
            # Whoever hands over less than is listed may do so in turn, with the same list and shape.
            if set(roles) == set(of_chunks):
                self._known[key] = roles
        shown = window if window and len(window) == per_chunk else range(per_chunk)
        return Rows(roles, tuple(shown[row % per_chunk] for row in range(count)))

    def _roles_of_chunks(self, chunks: Sequence[Any], ids: Sequence[Any]) -> list[int]:
        if self._named and len(ids) == len(chunks):
            return [self._sides.get(uid, POSITIVE) for uid in ids]
        return [NEGATIVE if chunk == 1 else POSITIVE for chunk in chunks]

    def _read(self, count: int, context: Tensor | None, chunks: Sequence[Any], ids: Sequence[Any]) -> list[int | None]:
        """Return the role of each row whose text belongs to one side alone; none for a context that can't be told."""
        if context is None or context.shape[0] != count or not self._texts:
            return []
        sides = self._sides or {
            uid: NEGATIVE if chunk == 1 else POSITIVE for uid, chunk in zip(ids, chunks, strict=False)
        }
        reads = torch.zeros(2, context.shape[0], dtype=torch.bool, device=context.device)
        for uid, text in self._texts:
            if uid in sides:
                reads[sides[uid]] |= _reads(context, text)
        positive, negative = reads.tolist()
        return [None if p == n else NEGATIVE if n else POSITIVE for p, n in zip(positive, negative, strict=True)]


def tell_copies_apart(guider: Any) -> None:
    """Give each copy of a conditioning an id of its own: the host copies an area of one side to the others, id too.

    The conditionings that a guider holds while it samples are copies for this run.
    """
    originals = getattr(guider, "original_conds", {})
    for name, group in guider.conds.items():
        own = {cond.get("uuid") for cond in originals.get(name) or ()}
        for cond in group or ():
            if cond.get("uuid") not in own:
                cond["uuid"] = uuid.uuid4()


def in_layer(rows: Rows, count: int, options: Mapping[str, Any]) -> Rows:
    """Return what the rows of a layer's queries are, where packs repeat chunks of the batch inside it.

    Attention-couple packs repeat every chunk but number 1, once per regional prompt, while `cond_or_uncond` still
    tells the chunks of before. They tell the chunks of after in a key of their own, or not at all.

    Args:
        rows: of the UNet's batch.
        count: b, of this layer's queries.
        options: the layer's extra_options.
    """
    before = len(rows.roles)
    if count == before:
        return rows
    chunks = list(options.get("cond_or_uncond") or [0])
    per_chunk = max(before // len(chunks), 1)
    told = (options.get(key) for key in ("cond_or_uncond_couple", "cond_or_uncond_hook_couple"))
    for repeats in (*(_repeats_told(chunks, after) for after in told if after), _repeats(chunks, count // per_chunk)):
        if repeats and sum(repeats) * per_chunk == count:
            origins = [
                chunk * per_chunk + row
                for chunk, times in enumerate(repeats)
                for _ in range(times)
                for row in range(per_chunk)
            ]
            return rows.take(origins)
    # Rows that don't divide evenly are spread all the same: nothing known fits, and sampling must go on.
    return rows.take([row * before // count for row in range(count)])


def _repeats_told(chunks: Sequence[Any], after: Sequence[Any]) -> list[int] | None:
    """Return how often each chunk comes in the list of after; packs write 1 for number 1, anything for the others."""
    runs, runs_after = (
        [(is_one, len([*run])) for is_one, run in groupby(listed, lambda chunk: chunk == 1)]
        for listed in (chunks, after)
    )
    if [kind for kind, _ in runs] != [kind for kind, _ in runs_after]:
        return None
    repeats = []
    for (_, length), (_, length_after) in zip(runs, runs_after, strict=True):
        if length_after % length:
            return None
        repeats += [length_after // length] * length
    return repeats


def _repeats(chunks: Sequence[Any], total: int) -> list[int] | None:
    """Return how often each chunk comes where all but number 1 come equally often, `total` in all."""
    repeated = sum(chunk != 1 for chunk in chunks)
    times, remainder = divmod(total - (len(chunks) - repeated), repeated or 1)
    return None if remainder or times < 1 else [1 if chunk == 1 else times for chunk in chunks]


def _texts(cond: Mapping[str, Any]) -> Iterable[Tensor]:
    """Return the text (texts, tokens, channels) of a conditioning, if it has one, as the UNet will read it."""
    text = getattr((cond.get("model_conds") or {}).get("c_crossattn"), "cond", None)
    return [text] if isinstance(text, Tensor) and text.ndim == 3 and text.numel() else []


def _reads(context: Tensor, text: Tensor) -> Tensor:
    """Return which rows of a context (b, tokens, channels) are one of the texts (texts, tokens, channels): (b,)."""
    repeats, remainder = divmod(context.shape[1], text.shape[1])
    if remainder or context.shape[2] != text.shape[2]:
        return torch.zeros(context.shape[0], dtype=torch.bool, device=context.device)
    # The host repeats tokens to a length that all texts of a call have, and casts to the UNet's dtype.
    texts = text.to(context).repeat(1, repeats, 1)
    return torch.stack([(context == one).flatten(1).all(dim=1) for one in texts]).any(dim=0)


def _filled(read: Sequence[int | None], of_chunks: Sequence[int], count: int, per_chunk: int) -> tuple[int, ...]:
    """Return all roles, given those that texts tell: the others follow the first order that no text contradicts.

    Args:
        read: roles that texts tell, by row; empty where none does.
        of_chunks: roles as the host lists them.
        count: b.
        per_chunk: rows of a chunk as the host makes them.
    """
    in_order = [of_chunks[row * len(of_chunks) // count] for row in range(count)]
    # Several batches one behind the other, each as the host lists it.
    in_turn = [of_chunks[row // per_chunk % len(of_chunks)] for row in range(count)]
    whole = count % (per_chunk * len(of_chunks)) == 0
    for order in (in_turn, in_order) if whole else (in_order,):
        if all(role in (None, expected) for role, expected in zip(read, order, strict=False)):
            return tuple(order)
    return tuple(expected if role is None else role for role, expected in zip(read, in_order, strict=True))


def _window(options: Mapping[str, Any]) -> Sequence[int] | None:
    """Return the frames of the window of a long batch that this call draws; None where it draws all of them."""
    window = options.get("context_window")
    if window is not None and getattr(window, "dim", 0) == 0:
        anchor = getattr(window, "causal_anchor_index", None)  # the host puts this frame in front of the window
        return [*([] if anchor is None or anchor < 0 else [anchor]), *map(int, window.index_list)]
    frames = (options.get("ad_params") or {}).get("sub_idxs")  # AnimateDiff-Evolved's
    return None if frames is None else [*map(int, frames)]
