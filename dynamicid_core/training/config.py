"""What a training is told: a JSON file, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

PRECISIONS = ("no", "bf16", "fp16")
FACE_TEXT = "portrait, cinematic photo, film, professional, 4k, highly detailed"


@dataclass(frozen=True)
class TrainingConfig:
    """What both stages are told. Relative paths are taken from the file's folder.

    Attributes:
        base: folder of the frozen base model as Stable Diffusion 1.5's repositories have it (`unet`, `vae`,
            `text_encoder`, `tokenizer`, `scheduler`), and `image_encoder`, CLIP's.
        data: folder of WebDataset shards (*.tar).
        output: where weights, checkpoints, logs and sample pictures go.
        batch: pictures a step, over all processes; the anchoring stage's.
        accumulation: parts in which a process takes its share of the batch, one after another.
        latent_cache: folder in which each picture's latents are kept, encoded once before the first step; several
            trainings on the same data may share it. None: they are encoded again in every step.
        size: pixels a side to which square pictures are brought; 0 leaves pictures as they are.
        precision: of the UNet's computations, one of PRECISIONS; trained weights stay float32.
        checkpointing: compute activations again when they are needed, for less memory.
        cool_down: last share of the steps, in which the learning rate falls to nothing.
        darkest, clearest: how much the times of the noise schedule weigh, see `weighting`; 1 and 0 are the method's.
        average: decay of the weights' moving average, which is what is written in the end.
        save_every, show_every: steps between checkpoints, and between sample pictures.
    """

    base: Path
    data: Path
    output: Path
    steps: int
    batch: int = 8
    accumulation: int = 1
    size: int = 512
    latent_cache: Path | None = None
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    warm_up: int = 0
    cool_down: float = 0.0
    darkest: float = 1.0
    clearest: float = 0.0
    average: float = 0.999
    clip: float = 1.0
    precision: str = "no"
    checkpointing: bool = False
    seed: int = 0
    save_every: int = 1000
    show_every: int = 1000

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}.")
        for name in ("steps", "batch", "accumulation", "save_every", "show_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")


@dataclass(frozen=True)
class AnchoringConfig(TrainingConfig):
    """The anchoring stage: SAA and the face encoder, one person in each picture (DynamicID, section 3.4).

    Attributes:
        rank: of SAA's LoRA.
        tokens, hidden_dim, depth, dim_head: of the face encoder.
        gate, gate_threshold: as in the attention that is trained; at 0 nothing is cut away.
        drop_identity, drop_text, drop_both: shares of the pictures that are shown without.
        other_reference: the reference is another picture of the same person, where there is one.
        face: how much more a picture's face weighs in the loss; 1 is the method's.
        face_margin: how far the face's box is grown on each side for that, in its widths and heights: hair, chin.
    """

    rank: int = 128
    tokens: int = 4
    hidden_dim: int = 1024
    depth: int = 4
    dim_head: int = 64
    gate: bool = True
    gate_threshold: float = 0.3
    drop_identity: float = 0.05
    drop_text: float = 0.05
    drop_both: float = 0.05
    other_reference: bool = False
    face: float = 1.0
    face_margin: float = 0.0


@dataclass(frozen=True)
class ReconfigurationConfig(TrainingConfig):
    """The reconfiguration stage: IMR and its keypoint encoder on cached tokens (DynamicID, section 3.4).

    Attributes:
        adapter: the anchoring stage's weights, frozen.
        targets: wanted motions a step, of one person.
        width, latents, depth, dim_head: of IMR; the head width is the face encoder's too.
        keypoint_widths, keypoint_depths, keypoint_output: of the keypoint encoder.
        gate, gate_threshold: of the attention through which the consistency is asked; the anchoring stage's.
        text: what the frozen UNet reads beside the tokens.
        consistency: weight of the difference between what the UNet predicts from the tokens and from the true ones.
        consistent: of so many of a person's targets that is asked, for fewer steps of the UNet; 0: of all.
        contrast: weight of the contrastive term on the disentangled tokens; 0 leaves it out.
        temperature: of the contrastive term.
        people: people a step, over all processes; the method's is 1, the contrastive term needs 2 on each process.
    """

    adapter: Path = Path("adapter.safetensors")
    targets: int = 32
    width: int = 1024
    latents: int = 4
    depth: int = 1
    dim_head: int = 64
    keypoint_widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    keypoint_depths: tuple[int, ...] = (1, 3, 4, 3, 3, 2)
    keypoint_output: int = 768
    gate: bool = True
    gate_threshold: float = 0.3
    text: str = FACE_TEXT
    consistency: float = 1.0
    consistent: int = 0
    contrast: float = 0.0
    temperature: float = 0.1
    people: int = 1


R = TypeVar("R", bound=TrainingConfig)


def read_config(path: Path, kind: type[R]) -> R:
    """Read a JSON file. Raises ValueError that names what is unknown, missing or of a wrong type."""
    try:
        said = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, {error}.") from error
    if not isinstance(said, dict):
        raise ValueError(f"{path}: expected an object of names and values, got {type(said).__name__}.")
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [name for name in said if name not in known]
    if unknown:
        raise ValueError(f"{path}: {', '.join(unknown)} is not known. Known are {', '.join(known)}.")
    needed = [name for name, field in known.items() if field.default is dataclasses.MISSING and name not in said]
    if needed:
        raise ValueError(f"{path}: {', '.join(needed)} is missing.")
    return kind(**{name: _value(path, known[name], value) for name, value in said.items()})


def _value(path: Path, field: dataclasses.Field[Any], value: Any) -> Any:
    kinds = {"Path": str, "int": int, "float": (int, float), "bool": bool, "str": str, "tuple[int, ...]": list}
    kind = str(field.type).removesuffix(" | None")
    if not isinstance(value, kinds[kind]) or (kind != "bool" and isinstance(value, bool)):  # type: ignore[arg-type]
        raise ValueError(f"{path}: {field.name} must be of type {kind}, got {value!r}.")
    if kind == "Path":
        return path.parent / value
    return tuple(value) if kind == "tuple[int, ...]" else value
