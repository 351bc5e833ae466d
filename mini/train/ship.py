"""`python -m mini ship`: the trained networks as the pack ships them, and what each gets right, as a model card."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..networks import VISION
from ..quantize import dequantize, quantize
from . import autoencoder, comfyui, encoders, figures, judge
from .autoencoder import AutoencoderStage
from .core import write_atomically, write_tensors
from .core_training import history
from .expression import ExpressionStage
from .expression_network import ExpressionNet, write_classifier
from .face_networks import FacePack, write_pack
from .face_pack import FacePackStage
from .flux import FluxStage
from .judge import JudgeStage
from .stage import NOTED, RECORD, WEIGHTS, TrainContext, read_record
from .text import TextStage
from .unet import UNetStage

FORMAT = "dynamicid-mini-1"
NETWORKS = ("autoencoder", "vision", "text", "unet", "flux", "judge")
PACK, CLASSIFIER, DYNAMICID = "face-pack", "expression", "dynamicid"
CLASSIFIER_FILE = f"{CLASSIFIER}.onnx"
_MADE_FOR = ("base", "identity_blocks")  # of an adapter's metadata, see `saa/bases.py`
ONNX = "shipped"  # the restored face pack's folder in its stage's
WHAT = {
    "autoencoder": "pictures to latents and back (TAESD's architecture)",
    "judge": "names every factor, the expression, the pose, the person: judges the others",
    "vision": "pictures to states and a vector, by contrast (CLIP's architecture)",
    "text": "captions to states and a vector (CLIP's architecture)",
    "unet": "latents from captions (SD1.5's architecture, noise prediction)",
    "flux": "latents from captions (Flux's architecture, rectified flow)",
    PACK: "detection, landmarks, pose and recognition, as insightface loads them",
    CLASSIFIER: "names a face's expression, as Load DynamicID's expression_model",
}


def ship(context: TrainContext, folder: Path) -> None:
    """Write `<name>.safetensors` for each network, the classifier's ONNX file, and the face pack's in a folder.

    Raises ValueError when a network has not been trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        save_file(quantize(context.stored(name)), folder / f"{name}.safetensors", {"format": FORMAT})
    write_atomically(folder / "vision.json", json.dumps(VISION, indent=2) + "\n")
    restored_pack = context.folder / PACK / ONNX
    if restored_pack.is_dir() and not (context.folder / PACK / WEIGHTS).exists():
        shutil.copytree(restored_pack, folder / PACK, dirs_exist_ok=True)
    else:
        write_pack(context.load(PACK, FacePack()), folder / PACK)
    restored_classifier = context.folder / CLASSIFIER / CLASSIFIER_FILE
    if restored_classifier.is_file() and not (context.folder / CLASSIFIER / WEIGHTS).exists():
        _copy(restored_classifier, folder / CLASSIFIER_FILE)
    else:
        write_classifier(context.load(CLASSIFIER, ExpressionNet()), folder / CLASSIFIER_FILE)
    for name in WHAT:
        _copy(context.folder / name / RECORD, _record(folder, name))


def keep_dynamicid(trained: Path, folder: Path, trainings: Sequence[Path] = ()) -> Path:
    """Write a DynamicID that was trained for the miniature beside the miniature's networks, kept as they are.

    It is `dynamicid.safetensors`, or of another base than the UNet `dynamicid-BASE.safetensors`.

    Args:
        trainings: folders whose curves and samples are kept as pictures beside `folder`.
    """
    with safe_open(trained, "pt") as file:
        made_for = {key: value for key, value in (file.metadata() or {}).items() if key in _MADE_FOR}
    name = "-".join([DYNAMICID, *filter(None, [made_for.get("base")])])
    path = folder / f"{name}.safetensors"
    write_tensors(quantize(load_file(trained)), path, {"format": FORMAT, **made_for})
    for training in trainings:
        show_training(training, folder.parent / "pictures")
    return path


def show_training(training: Path, folder: Path, every: int = 100) -> None:
    """Write what a training of the method left in its folder as pictures: `<its name>-curves.webp`, `-samples.webp`.

    Args:
        every: steps whose losses a point of the curves is the mean of.
    """
    losses = history.read_losses(training / history.LOSSES, every)
    folder.mkdir(parents=True, exist_ok=True)
    figures.write_image(folder / f"{training.name}-curves.webp", figures.curves(losses))
    drawn = sorted(training.glob("samples-*.png"))
    if drawn:
        figures.write_webp(drawn[-1], folder / f"{training.name}-samples.webp")


def _record(folder: Path, name: str) -> Path:
    """Return where the record of a network in `folder` is kept: beside it, since only another training reads it."""
    return folder.parent / "records" / f"{name}.json"


def _copy(file: Path, to: Path) -> None:
    """Copy a file, if there is one."""
    if file.exists():
        write_atomically(to, file.read_bytes())


def show(context: TrainContext, folder: Path) -> None:
    """Write each stage's loss curves and samples as small pictures: `<stage>-curves.webp`, `<stage>-samples.webp`."""
    for stage in WHAT:
        if (context.folder / stage / history.LOSSES).exists():  # what was restored has none
            show_training(context.folder / stage, folder, NOTED)


def as_shipped(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Return a shipped network's weights in float32."""
    return dequantize(load_file(folder / f"{name}.safetensors"))


def restore(shipped: Path, checkpoints: Path) -> None:
    """Store what shipped as the stages' results, which others are trained from.

    They go on from there themselves, but for the face pack and the classifier: they are kept as they ship until they
    are trained from nothing. A network that has not shipped yet is left to be trained.
    """
    for name in NETWORKS:
        if not (shipped / f"{name}.safetensors").exists():
            continue
        (checkpoints / name).mkdir(parents=True, exist_ok=True)
        save_file(as_shipped(shipped, name), checkpoints / name / WEIGHTS)
        _copy(_record(shipped, name), checkpoints / name / RECORD)
    shutil.copytree(shipped / PACK, checkpoints / PACK / ONNX, dirs_exist_ok=True)
    _copy(shipped / CLASSIFIER_FILE, checkpoints / CLASSIFIER / CLASSIFIER_FILE)
    for name in (PACK, CLASSIFIER):
        (checkpoints / name / WEIGHTS).unlink(missing_ok=True)


def restored(context: TrainContext, folder: Path, scratch: Path) -> TrainContext:
    """Return a context in which the stages' stored weights are the shipped ones, so that what ships is measured."""
    restore(folder, scratch)
    for drawn in context.folder.glob("pictures-*"):
        (scratch / drawn.name).symlink_to(drawn)
    return replace(context, folder=scratch)


def measure(context: TrainContext, folder: Path, quick: bool = False) -> dict[str, dict[str, float]]:
    """Return what the shipped networks get right on held-out people, by network; `quick` for a first look."""
    with tempfile.TemporaryDirectory() as scratch:
        shop = restored(context, folder, Path(scratch))
        coder, judging = autoencoder.load(shop), shop.load("judge", judge.Judge())

        def round_trip(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return autoencoder.decode(coder, autoencoder.encode(coder, images, shop), shop)

        coding, reading, drawing = AutoencoderStage(shop), TextStage(shop), UNetStage(shop)
        judges, faces, expressions = JudgeStage(shop), FacePackStage(shop), ExpressionStage(shop)
        if quick:
            for pictures in (coding.held_out, reading.held_out, judges.held_out, faces.held_out, expressions.held_out):
                pictures.size = 16
            for pictures in (*judges.held_out_groups, *faces.held_out_groups):
                pictures.size = 4
        numbers = (4, 2, 2) if quick else (200, 100, 100)
        with torch.no_grad():
            return {
                "autoencoder": coding.measures(coder),
                "judge": judges.measures(judging),
                "judge, on round trips": judges.measures(judging, round_trip),
                "text": reading.captions_told(encoders.load_text(shop)),
                "unet": drawing.measures(shop.load("unet", comfyui.unet()), numbers),
                "flux": FluxStage(shop).measures(shop.load("flux", comfyui.flux()), numbers),
                PACK: faces.report(folder / PACK),
                f"{PACK}, on round trips": faces.report(folder / PACK, round_trip),
                CLASSIFIER: expressions.report(folder / CLASSIFIER_FILE),
                f"{CLASSIFIER}, on round trips": expressions.report(folder / CLASSIFIER_FILE, round_trip),
            }


def card(context: TrainContext, folder: Path, measured: dict[str, dict[str, float]]) -> str:
    """Return the model card, in Markdown."""
    lines = [
        "# The miniature's networks",
        "",
        "Made by `python -m mini ship`: trained on rendered people by `python -m mini train`, measured on people whom",
        "training never showed, with the weights as they ship (a byte for each of a large matrix's elements).",
        "",
        "Data: 10,000 drawn people, 7 expressions, 5 yaws, 3 pitches, 36 clothes, 12 places, in portraits (128x128)",
        "and groups of two and three (256x128), with captions (`mini/world/world.py`). Everything follows from seed 0.",
        "",
        "| network | what it does | parameters | bytes | steps | minutes | loss |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, what in WHAT.items():
        files = {PACK: sorted((folder / PACK).iterdir()), CLASSIFIER: [folder / CLASSIFIER_FILE]}.get(name)
        files = files or [folder / f"{name}.safetensors"]
        size = sum(file.stat().st_size for file in files)
        onnx = {PACK: FacePack, CLASSIFIER: ExpressionNet}.get(name)
        weights = onnx().state_dict() if onnx else context.stored(name)
        count = sum(tensor.numel() for tensor in weights.values())
        record = read_record(_record(folder, name))
        if record is None:
            raise ValueError(f"expected {_record(folder, name)}: ship writes it")
        last = [losses["loss"] for _, losses in record.history[-10:]]
        loss = f"{np.nanmean(last):.4g}" if last else ""
        lines.append(
            f"| {name} | {what} | {count:,} | {size:,} | {record.step:,} | {record.seconds / 60:.0f} | {loss} |"
        )
    lines += ["", "Losses and samples: `pictures/`. Shares are of 1, errors are medians."]
    for name, values in measured.items():
        lines += ["", f"## {name}", "", "| measure | value |", "| --- | --- |"]
        lines += [f"| {key} | {value:.4g} |" for key, value in values.items()]
    return "\n".join(lines) + "\n"
