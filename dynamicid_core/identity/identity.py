"""An identity: what the face encoder made of a person, the value that flows through a graph, and its file.

File format `dynamicid-identity-1`: safetensors with `tokens` (T, D), `negative_tokens` (T, D) and optionally
`face.embedding` (512,), `face.landmarks` (106, 2), `face.points68` (68, 3), `face.pose` (3,), `face.box` (4,),
`face.size` (2,), `thumbnail` (H, W, 3) uint8, and of a person who moves `curve.tokens` (sets, T, D) and `curve.frames`
(frames,), the number of each frame's set; metadata `format`, `encoder` (sha256 of the face encoder's weights),
`name`, `face_prompt`, `expression` (one of `imr.motion.EXPRESSIONS`; absent: not known), `shares` (of a mixed identity,
comma-separated), `encoding` (JSON of `Encoding`; absent: the release's).
A file with the two token tensors and the format is enough.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..box import Box
from ..files import write_atomically
from ..imr.motion import EXPRESSIONS
from ..messages import LIMIT, about, printable, quoted, shown
from ..state_dict import listed
from ..tensor_file import open_tensors
from .curve import MAX_FRAMES, Curve, curve_of
from .encoding import RELEASE, Encoding
from .faces import Face

logger = logging.getLogger("DynamicID")

FORMAT = "dynamicid-identity-1"
LARGEST_FILE = 64 * 2**20  # bytes; an identity of SD1.5 has some 80,000
LARGEST = 4096  # tokens, and numbers of each
_LONGEST = {  # characters of metadata
    "encoder": 128, "encoding": 200, "expression": 20, "face_prompt": 1000, "shares": 100_000,
}  # fmt: skip
_FACE: dict[str, tuple[tuple[int, ...], float]] = {  # shape of what a face has in a file, and the largest number in it
    "embedding": ((512,), 1e3), "landmarks": ((106, 2), 1e6), "points68": ((68, 3), 1e6), "pose": ((3,), 360.0),
    "box": ((4,), 1e6), "size": ((2,), 1e6),
}  # fmt: skip
_PLAIN: dict[str, Callable[[list[Any]], Any]] = {  # no tensors in a Face
    "pose": tuple, "box": Box.of, "size": lambda size: tuple(map(int, size)),
}  # fmt: skip
_THUMBNAIL = 1024  # pixels of a side, at most
_CURVE = ("curve.tokens", "curve.frames")
_NAMES = {"tokens", "negative_tokens", "thumbnail", *_CURVE, *(f"face.{name}" for name in _FACE)}


@dataclass(frozen=True, eq=False)
class Identity:
    """One person as identity tokens, on the CPU in float32.

    Attributes:
        tokens: (T, D) from the face encoder; D is 768 for SD1.5. A mixed identity holds its token sets one after
            the other, T / len(shares) tokens each. Of a person who moves, those of the first frame.
        negative_tokens: (T, D), the encoder's tokens without a face, for the negative half of guidance.
        encoder: sha256 of the weights of the face encoder that made the tokens; "" when not known.
        shares: factor on the attention scores of each token set; (1.0,) unless mixed.
        name: for people to read.
        face_prompt: words for the expression and pose that the tokens show; "" when not known.
        expression: the one of EXPRESSIONS that the tokens show, as an expression model read it or an edit asked for
            it; "" when not known.
        face: the face the tokens were made from, or None.
        thumbnail: (H, W, 3) uint8 image of the face, or None.
        encoding: how the face encoder was shown the person, which its weights don't tell.
        curve: the person's motion by frame; None where the person is the same in all frames.
    """

    tokens: Tensor
    negative_tokens: Tensor
    encoder: str = ""
    shares: tuple[float, ...] = (1.0,)
    name: str = ""
    face_prompt: str = ""
    face: Face | None = None
    thumbnail: Tensor | None = None
    encoding: Encoding = RELEASE
    curve: Curve | None = None
    expression: str = ""

    def __repr__(self) -> str:
        encoder = printable(self.encoder[:12]) or "unknown"
        tokens = f"{self.tokens.shape[0]} tokens of {self.dim}" + (f", {self.frames} frames" if self.curve else "")
        return f"Identity({quoted(self.name[:60])}, {tokens}, encoder {encoder})"

    def __post_init__(self) -> None:
        for field in ("tokens", "negative_tokens"):
            object.__setattr__(self, field, _checked_tokens(getattr(self, field), field))
        if self.tokens.shape != self.negative_tokens.shape:
            raise ValueError(
                "An identity's tokens and negative tokens must have the same shape, got "
                f"{tuple(self.tokens.shape)} and {tuple(self.negative_tokens.shape)}. Encode the identity again."
            )
        if self.curve is not None and len(self.curve.tokens) == 1:
            object.__setattr__(self, "curve", None)
        if self.curve is not None and not torch.equal(self.curve.at(0), self.tokens):
            raise ValueError(
                "The tokens of a person who moves must be those of the first frame, but they differ. Edit before "
                "Animate Motion, and save the person again."
            )
        if not self.shares or self.tokens.shape[0] % len(self.shares):
            raise ValueError(
                f"An identity of {self.tokens.shape[0]} tokens can't be split into {len(self.shares)} token sets. "
                "Encode or mix the identity again."
            )
        if not all(0 <= share < math.inf for share in self.shares):
            raise ValueError(
                f"An identity's shares must be finite and not negative, got {quoted(self.shares)}. Mix the identity "
                "again."
            )

    @property
    def dim(self) -> int:
        """D, the dim of the UNet's text context that the tokens were made for."""
        return self.tokens.shape[1]

    @property
    def frames(self) -> int:
        """Number of frames in which the person's motion is known; 1 where it doesn't change."""
        return 1 if self.curve is None else len(self.curve.frames)

    def at(self, frame: int) -> "Identity":
        """Return the person as of one frame, from 0, who moves no more; after the last frame the motion stays."""
        return self if self.curve is None else replace(self, tokens=self.curve.at(frame), curve=None)

    @property
    def token_shares(self) -> Tensor:
        """(T,), the share of each token, see `shares`."""
        return torch.tensor(self.shares).repeat_interleave(self.tokens.shape[0] // len(self.shares))


def check_encoding(identity: Identity, encoding: Encoding, weights: str) -> None:
    """Raise ValueError where a person was encoded for another kind of weights than these.

    Args:
        weights: what is to read the person's tokens, for the message: "adapter".
    """
    if identity.encoding != encoding:
        raise ValueError(
            f"The identity {identity.name!r} was encoded for {identity.encoding}, this {weights} is for "
            f"{encoding}. Encode the person again with this Load DynamicID."
        )


def mix(a: Identity, b: Identity, amount: float) -> Identity:
    """Mix two identities into one person: attention scores of a times 1 - amount, of b times amount.

    Scores are scaled, not attention: the tokens of both stay in play for any amount in between; 0 is a, 1 is b.

    Raises:
        ValueError: amount is outside 0..1, or the identities come from different face encoders.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"The amount of a mix must be from 0 (only the first) to 1 (only the second), got {amount:g}.")
    if a.dim != b.dim or (a.encoder and b.encoder and a.encoder != b.encoder) or a.encoding != b.encoding:
        raise ValueError(
            "Only identities of the same face encoder can be mixed, got "
            f"{_encoder_words(a)} and {_encoder_words(b)}. Encode both with the same Load DynamicID."
        )
    if amount in (0, 1):
        return b if amount else a
    curve = None
    if a.curve or b.curve:
        frames = range(max(a.frames, b.frames))
        curve = curve_of([torch.cat([a.at(frame).tokens, b.at(frame).tokens]) for frame in frames])
    return Identity(
        tokens=torch.cat([a.tokens, b.tokens]),
        negative_tokens=torch.cat([a.negative_tokens, b.negative_tokens]),
        encoder=a.encoder or b.encoder,
        shares=tuple(s * (1 - amount) for s in a.shares) + tuple(s * amount for s in b.shares),
        name=printable(" + ".join(filter(None, (a.name, b.name)))),
        encoding=a.encoding,
        curve=curve,
        expression=a.expression if a.expression == b.expression else "",
    )


def save_identity(identity: Identity, path: Path) -> None:
    """Write an identity file; an existing file is replaced only once the new one is complete.

    Raises OSError where it can't be written, ValueError where it is larger than what is read.
    """
    tensors = {"tokens": identity.tokens, "negative_tokens": identity.negative_tokens}
    if identity.face is not None:
        tensors |= _face_tensors(identity.face)
    if identity.thumbnail is not None:
        tensors["thumbnail"] = identity.thumbnail
    if identity.curve is not None:
        sets = identity.curve.tokens.clone()  # of which `tokens` may be a part, and a file holds no shared memory
        tensors |= dict(zip(_CURVE, (sets, torch.tensor(identity.curve.frames)), strict=True))
    metadata = {
        "format": FORMAT,
        "encoder": identity.encoder,
        "name": identity.name,
        "face_prompt": identity.face_prompt,
        "shares": ",".join(map(repr, identity.shares)),
    }
    if identity.expression:
        metadata["expression"] = identity.expression
    if encoding := identity.encoding.to_text():
        metadata["encoding"] = encoding
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    if len(content) > LARGEST_FILE:
        raise ValueError(
            f"{shown(path)}: the identity has {len(content):,} bytes, at most {LARGEST_FILE:,} can be read again. "
            "Animate fewer frames."
        )
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OSError(
            f"{shown(path)}: could not be written ({error.strerror or error}). Check the folder, its rights, and the "
            "room on the disk."
        ) from error


def load_identity(path: Path) -> Identity:
    """Read an identity file.

    Raises:
        ValueError: not a safetensors file, another format or size, tensors missing, of a wrong shape or dtype, or not
            finite, texts that don't print. A name that does not print is left out, with a warning.
        FileNotFoundError: no such file.
        OSError: the file can't be read.
    """
    with open_tensors(path, LARGEST_FILE) as file:
        with about(path):
            _check_layout(file.tensors, file.metadata)
        tensors = file.read(file.tensors.keys() & _NAMES)
    with about(path):
        return _identity_from(tensors, file.metadata, default_name=printable(path.stem))


def _check_layout(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Check shapes, dtypes and texts before numbers are read; tensors of other names are left alone."""
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"expected an identity file (metadata format {FORMAT!r}), got format {quoted(metadata.get('format'))} with "
            f"tensors {listed(tensors) or 'none'}. Choose a file written by Save Identity."
        )
    missing = {"tokens", "negative_tokens"} - tensors.keys()
    if missing:
        raise ValueError(f"the tensors {sorted(missing)} are missing. Save the identity again.")
    for key, longest in _LONGEST.items():
        text = metadata.get(key, "")
        if not text.isprintable() or len(text) > longest:
            raise ValueError(
                f"the metadata `{key}` is {quoted(text)}, expected at most {longest:,} characters that print. "
                "Save the identity again."
            )
    if metadata.get("expression") and metadata["expression"] not in EXPRESSIONS:
        raise ValueError(
            f"the metadata `expression` is {quoted(metadata['expression'])}, expected one of {', '.join(EXPRESSIONS)}, "
            "or none. Save the identity again."
        )
    for name in ("tokens", "negative_tokens"):
        _check_tokens(tensors[name], name)
    _check_curve(tensors)
    expected = {f"face.{name}": shape for name, (shape, _) in _FACE.items() if f"face.{name}" in tensors}
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensors[name].shape)}, expected {shape}. Save the identity again."
            )
        dtype = tensors[name].dtype
        if not dtype.is_floating_point and (name != "face.size" or dtype.is_complex or dtype is torch.bool):
            kind = "whole numbers" if name == "face.size" else "floats"
            raise ValueError(f"{name} is {dtype}, expected {kind}. Save the identity again.")
    if (image := tensors.get("thumbnail")) is not None and not (
        image.dtype == torch.uint8 and image.ndim == 3 and image.shape[2] == 3 and min(image.shape) > 0
        and max(image.shape) <= _THUMBNAIL
    ):  # fmt: skip
        raise ValueError(
            f"thumbnail is {image.dtype} of shape {tuple(image.shape)}, expected torch.uint8 of shape "
            f"(height, width, 3) with sides up to {_THUMBNAIL}. Save the identity again."
        )


def _check_curve(tensors: Mapping[str, Tensor]) -> None:
    there = [name for name in _CURVE if name in tensors]
    if not there:
        return
    if len(there) < len(_CURVE):
        raise ValueError(f"of {' and '.join(_CURVE)} the file holds {there[0]} alone. Save the identity again.")
    sets, frames = (tensors[name] for name in _CURVE)
    shape = tuple(tensors["tokens"].shape)
    if not sets.is_floating_point() or sets.ndim != 3 or tuple(sets.shape[1:]) != shape or not len(sets):
        raise ValueError(
            f"curve.tokens is {sets.dtype} of shape {tuple(sets.shape)}, expected floats of shape (sets, {shape[0]}, "
            f"{shape[1]}). Save the identity again."
        )
    whole = not (frames.is_floating_point() or frames.is_complex() or frames.dtype is torch.bool)
    if not whole or frames.ndim != 1 or not 0 < len(frames) <= MAX_FRAMES or len(sets) > len(frames):
        raise ValueError(
            f"curve.frames is {frames.dtype} of shape {tuple(frames.shape)}, expected whole numbers of shape "
            f"(frames,), of at least {len(sets)} and at most {MAX_FRAMES:,} frames. Save the identity again."
        )


def _identity_from(tensors: dict[str, Tensor], metadata: Mapping[str, str], default_name: str) -> Identity:
    try:
        shares = tuple(float(share) for share in (metadata.get("shares") or "1.0").split(","))
    except ValueError:
        raise ValueError(
            f"the metadata `shares` must be numbers separated by commas, got {quoted(metadata['shares'])}. "
            "Save the identity again."
        ) from None
    name = metadata.get("name", "")
    if len(name) > LIMIT or not name.isprintable():
        logger.warning("%s: the name in the file, %s, was left out.", default_name, quoted(name))
        name = ""
    return Identity(
        tokens=tensors["tokens"],
        negative_tokens=tensors["negative_tokens"],
        encoder=metadata.get("encoder", ""),
        shares=shares,
        name=name or default_name,
        face_prompt=metadata.get("face_prompt", ""),
        face=_face_from(tensors),
        thumbnail=tensors.get("thumbnail"),
        encoding=Encoding.from_text(metadata.get("encoding", "")),
        curve=Curve(tensors[_CURVE[0]], tuple(tensors[_CURVE[1]].tolist())) if _CURVE[0] in tensors else None,
        expression=metadata.get("expression", ""),
    )


def _face_tensors(face: Face) -> dict[str, Tensor]:
    values = {name: getattr(face, name) for name in _FACE}
    return {f"face.{name}": torch.as_tensor(value) for name, value in values.items() if value is not None}


def _face_from(tensors: dict[str, Tensor]) -> Face | None:
    """Return the face that a file tells of, None when it tells of none."""
    values: dict[str, Any] = {}
    for name, (_, largest) in _FACE.items():
        if (tensor := tensors.get(f"face.{name}")) is None:
            continue
        tensor = tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        if not bool((tensor.abs() <= largest).all()):  # nor is NaN
            raise ValueError(
                f"face.{name} holds NaN, infinity or a number beyond {largest:,g}, expected finite ones. Encode the "
                "person again."
            )
        values[name] = _PLAIN[name](tensor.tolist()) if name in _PLAIN else tensor
    if "size" in values and min(values["size"]) < 1:
        raise ValueError(f"face.size is {values['size']}, expected (height, width) above 0. Encode the person again.")
    return Face(**values) if values else None


def _check_tokens(tokens: Tensor, field: str) -> None:
    """Check what is known of tokens without their numbers."""
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(
            f"An identity's {field} must have shape (tokens, dim), such as (4, 768) for SD1.5, "
            f"got {tuple(tokens.shape)}. Encode the identity again."
        )
    if max(tokens.shape) > LARGEST:
        raise ValueError(
            f"An identity's {field} can be at most {LARGEST:,} tokens of {LARGEST:,} numbers, got "
            f"{tuple(tokens.shape)}. Mix fewer people, or encode the identity again."
        )
    if not tokens.is_floating_point():
        raise ValueError(f"An identity's {field} must be floats, got {tokens.dtype}. Encode the identity again.")


def _checked_tokens(tokens: Tensor, field: str) -> Tensor:
    _check_tokens(tokens, field)
    tokens = tokens.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(tokens).all()):
        raise ValueError(f"An identity's {field} must be finite numbers, but NaN or infinity came. Encode it again.")
    return tokens


def _encoder_words(identity: Identity) -> str:
    encoder = f"encoder {identity.encoder[:12]}" if identity.encoder else "an unknown encoder"
    if identity.encoding != RELEASE:
        encoder += f", {identity.encoding}"
    return f"{identity.name or 'an identity'!r} ({encoder}, dim {identity.dim})"
