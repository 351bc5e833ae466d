"""`python -m mini train` and `ship`: all stages, or one from what the others stored; then what becomes of them."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from . import ship
from .autoencoder import AutoencoderStage
from .core_training import trainer
from .face_pack import FacePackStage
from .judge import JudgeStage
from .stage import Stage, TrainContext, half_is_quicker
from .text import TextStage
from .unet import UNetStage
from .vision import VisionStage

# In the order in which they are trained: each may use what those before it stored.
STAGES: dict[str, Callable[[TrainContext], Stage]] = {
    stage.name: stage for stage in (AutoencoderStage, JudgeStage, VisionStage, TextStage, UNetStage, FacePackStage)
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="FOLDER", help="outside the checkout")
    parser.add_argument("--stage", choices=STAGES, help="this one alone; all of them otherwise")
    parser.add_argument("--until", type=int, metavar="STEP", help="stop at this step; a later run goes on from there")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--threads", type=int, help="of the CPU; as many as torch takes by itself otherwise")
    parser.add_argument("--seed", type=int, default=0)


def add_ship_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="FOLDER", help="where they were trained")
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the weights go; card and pictures: beside it",
    )
    parser.add_argument("--threads", type=int, help="of the CPU")


def add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="FOLDER", help="where stages are stored")
    parser.add_argument("--from", type=Path, required=True, metavar="FOLDER", dest="shipped", help="the shipped files")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", type=Path, required=True, metavar="FOLDER", dest="shipped", help="the shipped files")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the models go")


def add_keep_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trained", type=Path, metavar="FILE", help="what a training of the method wrote")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the miniature's weights")
    parser.add_argument("--trainings", type=Path, nargs="*", default=[], metavar="FOLDER",
        help="whose curves and samples are kept beside them")  # fmt: skip


def add_prepare_arguments(parser: argparse.ArgumentParser) -> None:
    add_export_arguments(parser)
    parser.add_argument("--portraits", type=int, default=12_000, help="for the anchoring stage")
    parser.add_argument("--sets", type=int, default=130, metavar="PEOPLE", help="for the reconfiguration stage")


def _ship(context: TrainContext, folder: Path) -> int:
    try:
        ship.ship(context, folder)
    except ValueError as error:  # a stage that has not been trained
        print(error, file=sys.stderr)
        return 1
    ship.show(context, folder.parent / "pictures")
    card = folder.parent / "MODEL_CARD.md"
    card.write_text(ship.card(context, folder, ship.measure(context, folder)), "utf-8")
    print(card)
    return 0


def run(arguments: argparse.Namespace) -> int:
    cv2.setNumThreads(1)
    if getattr(arguments, "threads", None):
        torch.set_num_threads(arguments.threads)
    if arguments.command == "export":
        from .export import export  # only this needs diffusers and transformers

        export(arguments.shipped, arguments.to)
        return 0
    if arguments.command == "keep":
        print(ship.keep_dynamicid(arguments.trained, arguments.to))
        for training in arguments.trainings:
            ship.show_training(training, arguments.to.parent / "pictures")
        return 0
    if arguments.command == "prepare":
        from .prepare import prepare  # only this needs insightface and webdataset too

        prepare(arguments.shipped, arguments.to, arguments.portraits, arguments.sets, print)
        return 0
    folder = arguments.checkpoints.expanduser().resolve()
    if folder.is_relative_to(Path(__file__).resolve().parents[2]):
        print(f"expected a folder outside the checkout for the checkpoints, got {folder}", file=sys.stderr)
        return 2
    if arguments.command == "restore":
        ship.restore(arguments.shipped, folder)
        return 0
    if arguments.command == "ship":
        return _ship(TrainContext(folder), arguments.to)
    device = torch.device(arguments.device)
    half = arguments.precision == "bfloat16" or (arguments.precision == "auto" and half_is_quicker(device))
    context = TrainContext(folder, arguments.seed, device, half)
    precision, threads = "bfloat16" if half else "float32", torch.get_num_threads()
    print(f"process {os.getpid()}, {device}, {precision}, {threads} threads, {folder}", flush=True)
    for name in [arguments.stage] if arguments.stage else STAGES:
        try:
            training = trainer.Trainer(STAGES[name](context), log=lambda line: print(line, flush=True))
        except ValueError as error:  # a stage whose inputs are missing
            print(error, file=sys.stderr)
            return 1
        with training.stopping_on_signals():
            training.run(arguments.until)
        if training.stopped:
            return 1
    return 0
