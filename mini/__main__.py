"""The miniature's commands.

`python -m mini sheet OUT.png`                     a contact sheet of people, motions, places and groups
`python -m mini experiments --to FOLDER [...]`     what `python -m dynamicid_core.evaluation` draws and measures
`python -m mini results RUN --to mini`             what that found, kept as RESULTS.md, results.json and grids
`python -m mini train --checkpoints FOLDER [...]`  train the miniature's networks, or go on with it
`python -m mini ship --checkpoints FOLDER --to OUT`  the trained networks as they ship, and their model card
`python -m mini restore --checkpoints FOLDER --from OUT`  what shipped as stored stages, to train one of them again
`python -m mini export --from OUT --to FOLDER`     what shipped as diffusers and transformers keep models
`python -m mini prepare --from OUT --to FOLDER`    what the method's own trainings start from: that, people, recipes
`python -m mini keep FILE --to OUT`                a DynamicID trained so, as it ships
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from .train.experiments import CONTRASTIVE, UNGATED, write_experiments
from .train.figures import write_image
from .train.results import keep_results
from .world.caption import PLACES, YAWS, CaptionSpec, PersonSpec
from .world.composition import Figure, Scene, compose
from .world.head import EXPRESSIONS, Motion
from .world.person import draw_person
from .world.render import render

HELP = {
    "sheet": "draw a contact sheet",
    "experiments": "write the experiments' configuration",
    "results": "keep what an evaluation found",
    "train": "train the networks, or go on with it",
    "ship": "write the trained networks as they ship, and their model card",
    "restore": "take what shipped as stored stages",
    "export": "write what shipped as diffusers and transformers keep models",
    "prepare": "make what the method's own trainings start from",
    "keep": "let the miniature ship with a DynamicID",
}


def sheet() -> NDArray[np.uint8]:
    """Return (rows x 128, 1024, 3) uint8 RGB: 16 people, two people's expressions and poses, the places, groups."""
    still = CaptionSpec((PersonSpec(expression="neutral", view="in front view"),))
    scenes = [compose(still, (draw_person(seed),), seed) for seed in range(16)]
    motions = [*(Motion(expression) for expression in EXPRESSIONS), Motion("happy", pitch=15.0)]
    motions += [Motion("neutral", yaw) for yaw in YAWS]
    motions += [Motion("happy", 40.0), Motion("sad", -20.0, -15.0), Motion("fear", 20.0, 15.0)]
    for seed in (3, 5):
        figures = [Figure(draw_person(seed), motion, "blue", "t-shirt", 64, 65, 26) for motion in motions]
        scenes += [Scene(128, 128, "on a plain yellow background", (figure,)) for figure in figures]
    for i, place in enumerate((*PLACES[5:], "on a plain green background")):
        scenes.append(compose(CaptionSpec((PersonSpec(),), place), (draw_person(40 + i),), i))
    for count in (2, 3):  # a group is as wide as two portraits
        for i in range(4):
            people = tuple(draw_person(60 + 3 * i + j) for j in range(count))
            scenes.append(compose(CaptionSpec((PersonSpec(),) * count), people, i))
    strip = np.concatenate([render(scene).image for scene in scenes], axis=1)
    return rearrange(strip, "h (rows w) c -> (rows h) w c", w=1024)


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m mini", description="The miniature world.")
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {name: commands.add_parser(name, help=text) for name, text in HELP.items()}
    parsers["sheet"].add_argument("out", help="the PNG to write")
    parsers["experiments"].add_argument("--to", type=Path, required=True, metavar="FOLDER",
        help="where it and references go")  # fmt: skip
    parsers["experiments"].add_argument("--pictures", type=int, default=200, help="of a row, at least")
    parsers["experiments"].add_argument("--trained", type=Path, nargs="*", default=[], metavar="FILE",
        help=f"{UNGATED}, {CONTRASTIVE}: as they lie in the server's models/dynamicid")  # fmt: skip
    parsers["results"].add_argument("run", type=Path, metavar="RUN", help="an evaluation's output")
    parsers["results"].add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the miniature's folder")
    if {"train", "ship", "restore", "export", "prepare", "keep"} & set(argv[:1]):  # only these need torch
        from .train import command

        command.add_arguments(parsers["train"])
        command.add_ship_arguments(parsers["ship"])
        command.add_restore_arguments(parsers["restore"])
        command.add_export_arguments(parsers["export"])
        command.add_prepare_arguments(parsers["prepare"])
        command.add_keep_arguments(parsers["keep"])
        return command.run(parser.parse_args(argv))
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "experiments":
            print(write_experiments(arguments.to, arguments.pictures, tuple(arguments.trained)))
        elif arguments.command == "results":
            print(keep_results(arguments.run, arguments.to))
        else:
            write_image(Path(arguments.out), sheet())
            print(arguments.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
