"""Configurations of the trainings: JSON files, checked before anything is loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from ..configuration import ConfigModel, ConfigPath

FACE_TEXT = "portrait, cinematic photo, film, professional, 4k, highly detailed"


class OptimizationConfig(ConfigModel):
    """How a trainer takes its steps, whatever it trains.

    Attributes:
        gradient_accumulation_steps: parts in which a process takes its share of a step's rows, one after another.
        warmup_steps: steps in which the learning rate rises from nothing.
        decay_ratio: last share of the steps, in which the learning rate falls to nothing.
        ema_decay: of the weights' exponential moving average, which is what is written in the end.
        ema_warmup: the average forgets faster in the first steps, and begins with the first weights.
        max_grad_norm: a longer gradient is shortened to it.
        mixed_precision: of the module's computations; trained weights stay float32.
        log_every, save_every, sample_every: steps between lines of the log, checkpoints, and sample images.
    """

    steps: PositiveInt
    gradient_accumulation_steps: PositiveInt = 1
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    warmup_steps: NonNegativeInt = 0
    decay_ratio: NonNegativeFloat = 0.0
    ema_decay: float = 0.999
    ema_warmup: bool = False
    max_grad_norm: float = 1.0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    log_every: PositiveInt = 25
    save_every: PositiveInt = 1000
    sample_every: PositiveInt = 1000


class TrainingConfig(OptimizationConfig):
    """Settings of both stages of the method. Relative paths are taken from the file's folder.

    Attributes:
        base: folder of the frozen base model as Stable Diffusion's repositories have it (`unet`, `vae`,
            `text_encoder`, `tokenizer`, `scheduler`; SDXL's also `text_encoder_2`, `tokenizer_2`), or Flux's
            (`transformer` for `unet`), and `image_encoder`, CLIP's.
        data: folder of WebDataset shards (*.tar).
        output: where weights, checkpoints, logs and sample images go.
        batch: images a step, over all processes; the anchoring stage's.
        size: pixels a side to which square images are brought; 0 leaves images as they are.
        latent_cache: folder in which each image's latents are kept, encoded once before the first step; several
            trainings on the same data may share it. None: they are encoded again in every step.
        gradient_checkpointing: compute activations again when they are needed, for less memory.
        max_loss_weight, min_snr_gamma: how much a UNet's timesteps weigh, see `losses`; 1 and 0 are the method's.
        timestep_logit_mean, timestep_logit_std: of Flux's timesteps, see `flux_base`; more mean is more noise.
        gate, gate_threshold: of SAA, alike in both stages; a threshold of 0 cuts nothing away.
        num_samples: images in a row of a sample sheet.
    """

    base: ConfigPath
    data: ConfigPath
    output: ConfigPath
    batch: PositiveInt = 8
    size: NonNegativeInt = 512
    latent_cache: ConfigPath | None = None
    gradient_checkpointing: bool = False
    max_loss_weight: float = 1.0
    min_snr_gamma: float = 0.0
    timestep_logit_mean: float = 0.0
    timestep_logit_std: float = 1.0
    gate: bool = True
    gate_threshold: float = 0.3
    seed: int = 0
    num_samples: PositiveInt = 4


class AnchoringConfig(TrainingConfig):
    """Settings of the anchoring stage: SAA and the face encoder, one person in each image (DynamicID, section 3.4).

    Attributes:
        rank: of SAA's LoRA.
        identity_blocks: which of Flux's blocks people enter: all, or the double-stream ones alone.
        tokens, hidden_dim, depth, dim_head: of the face encoder.
        identity_dropout, text_dropout, joint_dropout: probability that a row lacks the person, the text, both.
        other_reference: the reference is another image of the same person, where there is one.
        face_loss_weight: how much more an image's face weighs in the loss; 1 is the method's.
        face_loss_margin: part of the face's box by which it is grown on each side for that: hair, chin.
    """

    rank: PositiveInt = 128
    identity_blocks: Literal["all", "double"] = "all"
    tokens: PositiveInt = 4
    hidden_dim: PositiveInt = 1024
    depth: PositiveInt = 4
    dim_head: PositiveInt = 64
    identity_dropout: float = 0.05
    text_dropout: float = 0.05
    joint_dropout: float = 0.05
    other_reference: bool = False
    face_loss_weight: float = 1.0
    face_loss_margin: float = 0.0


class ReconfigurationConfig(TrainingConfig):
    """Settings of the reconfiguration stage: IMR and its keypoint encoder on cached tokens (DynamicID, section 3.4).

    Attributes:
        adapter: the anchoring stage's weights, frozen.
        targets: target motions a step, of one person.
        dim, latents, depth, dim_head: of IMR; dim_head is the face encoder's too.
        keypoint_dims, keypoint_depths, keypoint_output: of the keypoint encoder.
        text: what the frozen UNet reads beside the tokens.
        consistency_weight: of the difference between the noise predicted from the tokens and from the true ones.
        consistency_targets: of each person's targets, for how many that is computed; 0: for all.
        contrastive_weight: of the contrastive term on the disentangled tokens; 0 leaves it out.
        temperature: of the contrastive term.
        people: people a step, over all processes; the method's is 1, the contrastive term needs 2 on each process.
    """

    adapter: ConfigPath
    targets: PositiveInt = 32
    dim: PositiveInt = 1024
    latents: PositiveInt = 4
    depth: PositiveInt = 1
    dim_head: PositiveInt = 64
    keypoint_dims: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    keypoint_depths: tuple[int, ...] = (1, 3, 4, 3, 3, 2)
    keypoint_output: PositiveInt = 768
    text: str = FACE_TEXT
    consistency_weight: float = 1.0
    consistency_targets: NonNegativeInt = 0
    contrastive_weight: float = 0.0
    temperature: float = 0.1
    people: PositiveInt = 1


NOISE_OPTIONS = frozenset({"max_loss_weight", "min_snr_gamma"})
"""Options that only a UNet has, which predicts noise."""
FLUX_OPTIONS = frozenset({"timestep_logit_mean", "timestep_logit_std", "identity_blocks"})
"""Options that only Flux has: of its flow's times, and of its two kinds of blocks."""

# Keys of earlier versions, and what they are called now.
RENAMED = {
    "accumulation": "gradient_accumulation_steps", "average": "ema_decay", "checkpointing": "gradient_checkpointing",
    "clearest": "min_snr_gamma", "clip": "max_grad_norm", "consistency": "consistency_weight",
    "consistent": "consistency_targets", "contrast": "contrastive_weight", "cool_down": "decay_ratio",
    "darkest": "max_loss_weight", "drop_both": "joint_dropout", "drop_identity": "identity_dropout",
    "drop_text": "text_dropout", "face": "face_loss_weight", "face_margin": "face_loss_margin",
    "keypoint_widths": "keypoint_dims", "precision": "mixed_precision", "show_every": "sample_every",
    "warm_up": "warmup_steps", "width": "dim",
}  # fmt: skip
