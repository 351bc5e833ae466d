"""An identity: what the face encoder made of a person, the value that flows through a graph, and its file.

File format `dynamicid-identity-1`: safetensors with `tokens` (T, D), `negative_tokens` (T, D) and optionally
`face.embedding` (512,), `face.landmarks` (106, 2), `face.points68` (68, 3), `face.pose` (3,), `face.box` (4,),
`face.size` (2,), `thumbnail` (H, W, 3) uint8; metadata `format`, `encoder` (sha256 of the face encoder's weights),
`name`, `face_prompt`, `shares` (of a mixed identity, comma-separated).
A file with the two token tensors and the format is enough.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..box import Box
from ..files import write_atomically
from ..state_dict import listed
from ..tensor_file import read_safetensors
from .faces import Face

FORMAT = "dynamicid-identity-1"
_FACE_SHAPES = {  # of the tensors that a face has in a file
    "embedding": (-1,), "landmarks": (106, 2), "points68": (68, 3), "pose": (3,), "box": (4,), "size": (2,),
}  # fmt: skip
_PLAIN: dict[str, Callable[[list[Any]], Any]] = {"pose": tuple, "box": Box.of, "size": tuple}  # no tensors in a Face


@dataclass(frozen=True, eq=False)
class Identity:
    """One person as identity tokens, on the CPU in float32.

    Attributes:
        tokens: (T, D) from the face encoder; D is 768 for SD1.5. A mixed identity holds its token sets one after
            the other, T / len(shares) tokens each.
        negative_tokens: (T, D), the encoder's tokens without a face, for the negative half of guidance.
        encoder: sha256 of the weights of the face encoder that made the tokens; "" when not known.
        shares: factor on the attention scores of each token set; (1.0,) unless mixed.
        name: for people to read.
        face_prompt: words for the reference's own expression and pose; "" when not known.
        face: the face the tokens were made from, or None.
        thumbnail: (H, W, 3) uint8 image of the face, or None.
    """

    tokens: Tensor
    negative_tokens: Tensor
    encoder: str = ""
    shares: tuple[float, ...] = (1.0,)
    name: str = ""
    face_prompt: str = ""
    face: Face | None = None
    thumbnail: Tensor | None = None

    def __post_init__(self) -> None:
        for field in ("tokens", "negative_tokens"):
            object.__setattr__(self, field, _checked_tokens(getattr(self, field), field))
        if self.tokens.shape != self.negative_tokens.shape:
            raise ValueError(
                "An identity's tokens and negative tokens must have the same shape, got "
                f"{tuple(self.tokens.shape)} and {tuple(self.negative_tokens.shape)}. Encode the identity again."
            )
        if not self.shares or self.tokens.shape[0] % len(self.shares):
            raise ValueError(
                f"An identity of {self.tokens.shape[0]} tokens can't be split into {len(self.shares)} token sets. "
                "Encode or mix the identity again."
            )

    @property
    def dim(self) -> int:
        """D, the dim of the UNet's text context that the tokens were made for."""
        return self.tokens.shape[1]

    @property
    def token_shares(self) -> Tensor:
        """(T,), the share of each token, see `shares`."""
        return torch.tensor(self.shares).repeat_interleave(self.tokens.shape[0] // len(self.shares))


def mix(a: Identity, b: Identity, amount: float) -> Identity:
    """Mix two identities into one person: attention scores of a times 1 - amount, of b times amount.

    Scores are scaled, not attention: the tokens of both stay in play for any amount in between; 0 is a, 1 is b.

    Raises:
        ValueError: amount is outside 0..1, or the identities come from different face encoders.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"The amount of a mix must be from 0 (only the first) to 1 (only the second), got {amount:g}.")
    if a.dim != b.dim or (a.encoder and b.encoder and a.encoder != b.encoder):
        raise ValueError(
            "Only identities of the same face encoder can be mixed, got "
            f"{_encoder_words(a)} and {_encoder_words(b)}. Encode both with the same Load DynamicID."
        )
    if amount in (0, 1):
        return b if amount else a
    return Identity(
        tokens=torch.cat([a.tokens, b.tokens]),
        negative_tokens=torch.cat([a.negative_tokens, b.negative_tokens]),
        encoder=a.encoder or b.encoder,
        shares=tuple(s * (1 - amount) for s in a.shares) + tuple(s * amount for s in b.shares),
        name=" + ".join(filter(None, (a.name, b.name))),
    )


def save_identity(identity: Identity, path: Path) -> None:
    """Write an identity file; an existing file is replaced only once the new one is complete."""
    tensors = {"tokens": identity.tokens, "negative_tokens": identity.negative_tokens}
    if identity.face is not None:
        tensors |= _face_tensors(identity.face)
    if identity.thumbnail is not None:
        tensors["thumbnail"] = identity.thumbnail
    metadata = {
        "format": FORMAT,
        "encoder": identity.encoder,
        "name": identity.name,
        "face_prompt": identity.face_prompt,
        "shares": ",".join(map(repr, identity.shares)),
    }
    write_atomically(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def load_identity(path: Path) -> Identity:
    """Read an identity file.

    Raises:
        ValueError: not a safetensors file, another format, tensors missing, of a wrong shape or not finite.
        FileNotFoundError: no such file.
    """
    try:
        tensors, metadata = read_safetensors(path)
    except ValueError as error:
        raise ValueError(
            f"{path.name} is not a readable safetensors file ({error.__cause__}). "
            "Save the identity again, or copy the file again if it was moved here."
        ) from error
    try:
        return _identity_from(tensors, metadata, default_name=path.stem)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _identity_from(tensors: dict[str, Tensor], metadata: dict[str, str], default_name: str) -> Identity:
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"expected an identity file (metadata format {FORMAT!r}), got format {metadata.get('format')!r} with "
            f"tensors {listed(tensors) or 'none'}. Choose a file written by Save Identity."
        )
    missing = {"tokens", "negative_tokens"} - tensors.keys()
    if missing:
        raise ValueError(f"the tensors {sorted(missing)} are missing. Save the identity again.")
    try:
        shares = tuple(float(share) for share in (metadata.get("shares") or "1.0").split(","))
    except ValueError:
        raise ValueError(
            f"the metadata `shares` must be numbers separated by commas, got {metadata['shares']!r}. "
            "Save the identity again."
        ) from None
    return Identity(
        tokens=tensors["tokens"],
        negative_tokens=tensors["negative_tokens"],
        encoder=metadata.get("encoder", ""),
        shares=shares,
        name=metadata.get("name") or default_name,
        face_prompt=metadata.get("face_prompt", ""),
        face=_face_from(tensors),
        thumbnail=tensors.get("thumbnail"),
    )


def _face_tensors(face: Face) -> dict[str, Tensor]:
    values = {name: getattr(face, name) for name in _FACE_SHAPES}
    return {f"face.{name}": torch.as_tensor(value) for name, value in values.items() if value is not None}


def _face_from(tensors: dict[str, Tensor]) -> Face | None:
    """Return the face that a file tells of, None when it tells of none."""
    values: dict[str, Any] = {}
    for name, shape in _FACE_SHAPES.items():
        if (tensor := tensors.get(f"face.{name}")) is None:
            continue
        if tensor.ndim != len(shape) or (-1 not in shape and tuple(tensor.shape) != shape):
            raise ValueError(f"face.{name} has shape {tuple(tensor.shape)}, expected {shape}. Save the identity again.")
        values[name] = _PLAIN[name](tensor.tolist()) if name in _PLAIN else tensor
    return Face(**values) if values else None


def _checked_tokens(tokens: Tensor, field: str) -> Tensor:
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(
            f"An identity's {field} must have shape (tokens, dim), such as (4, 768) for SD1.5, "
            f"got {tuple(tokens.shape)}. Encode the identity again."
        )
    tokens = tokens.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(tokens).all()):
        raise ValueError(f"An identity's {field} must be finite numbers, but NaN or infinity came. Encode it again.")
    return tokens


def _encoder_words(identity: Identity) -> str:
    encoder = f"encoder {identity.encoder[:12]}" if identity.encoder else "an unknown encoder"
    return f"{identity.name or 'an identity'!r} ({encoder}, dim {identity.dim})"
