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

import cv2
import numpy as np
from numpy.typing import NDArray

from .train.experiments import CONTRASTIVE, UNGATED, write_experiments
from .train.results import keep_results
from .world.caption import PLACES, YAWS, CaptionSpec, PersonSpec
from .world.composition import Figure, Scene, compose
from .world.head import EXPRESSIONS, Motion
from .world.person import draw_person
from .world.render import render


def _row(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate(pictures, axis=1)


def sheet() -> NDArray[np.uint8]:
    """(rows x 128, 1024, 3) uint8 RGB: 16 people, one person's expressions and poses, the places, groups."""
    rows = []
    people = [draw_person(seed) for seed in range(16)]
    looks = [
        compose(CaptionSpec((PersonSpec(expression="neutral", view="in front view"),)), (p,), p.seed) for p in people
    ]
    rows += [_row([render(s).image for s in looks[i : i + 8]]) for i in (0, 8)]
    for seed in (3, 5):
        person = draw_person(seed)
        poses = [Motion(e) for e in EXPRESSIONS] + [Motion("happy", pitch=15.0)]
        poses += [Motion("neutral", yaw) for yaw in YAWS]
        poses += [Motion("happy", 40.0), Motion("sad", -20.0, -15.0), Motion("fear", 20.0, 15.0)]
        figures = [Figure(person, m, "blue", "t-shirt", 64, 65, 26) for m in poses]
        shown = [render(Scene(128, 128, "on a plain yellow background", (f,))).image for f in figures]
        rows += [_row(shown[:8]), _row(shown[8:])]
    specs = [CaptionSpec((PersonSpec(),), place) for place in (*PLACES[5:], "on a plain green background")]
    rows.append(_row([render(compose(spec, (draw_person(40 + i),), i)).image for i, spec in enumerate(specs)]))
    for count in (2, 3):
        groups = [tuple(draw_person(60 + 3 * i + j) for j in range(count)) for i in range(4)]
        rows.append(
            _row([render(compose(CaptionSpec((PersonSpec(),) * count), g, i)).image for i, g in enumerate(groups)])
        )
    return np.concatenate(rows)


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m mini", description="The miniature world.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sheet", help="draw a contact sheet").add_argument("out", help="the PNG to write")
    experimenter = commands.add_parser("experiments", help="write the experiments' configuration")
    experimenter.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where it and references go")
    experimenter.add_argument("--pictures", type=int, default=200, help="of a row, at least")
    experimenter.add_argument("--trained", type=Path, nargs="*", default=[], metavar="FILE",
        help=f"{UNGATED}, {CONTRASTIVE}: as they lie in the server's models/dynamicid")  # fmt: skip
    keeping = commands.add_parser("results", help="keep what an evaluation found")
    keeping.add_argument("run", type=Path, metavar="RUN", help="an evaluation's output")
    keeping.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the miniature's folder")
    trainer = commands.add_parser("train", help="train the networks, or go on with it")
    shipper = commands.add_parser("ship", help="write the trained networks as they ship, and their model card")
    restorer = commands.add_parser("restore", help="take what shipped as stored stages")
    exporter = commands.add_parser("export", help="write what shipped as diffusers and transformers keep models")
    preparer = commands.add_parser("prepare", help="make what the method's own trainings start from")
    keeper = commands.add_parser("keep", help="let the miniature ship with a DynamicID")
    if argv[:1] in (["train"], ["ship"], ["restore"], ["export"], ["prepare"], ["keep"]):  # only then is torch needed
        from .train import command

        command.add_arguments(trainer)
        command.add_ship_arguments(shipper)
        command.add_restore_arguments(restorer)
        command.add_export_arguments(exporter)
        command.add_prepare_arguments(preparer)
        command.add_keep_arguments(keeper)
        return command.run(parser.parse_args(argv))
    arguments = parser.parse_args(argv)
    if arguments.command == "experiments":
        print(write_experiments(arguments.to, arguments.pictures, tuple(arguments.trained)))
        return 0
    if arguments.command == "results":
        try:
            print(keep_results(arguments.run, arguments.to))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    if not cv2.imwrite(arguments.out, cv2.cvtColor(sheet(), cv2.COLOR_RGB2BGR)):
        print(f"could not write {arguments.out}", file=sys.stderr)
        return 1
    print(arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
