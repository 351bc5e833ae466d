"""The miniature's commands.

`python -m mini sheet OUT.png`                     a contact sheet of people, motions, places and groups
`python -m mini standard-face web/standard_face.js`  the face that the panel of Edit Facial Motion begins with
`python -m mini experiments --to FOLDER [...]`     what `python -m dynamicid_core.evaluation` draws and measures
`python -m mini results RUN --to mini`             what that measured, kept as RESULTS.md, results.json and grids
`python -m mini motion-tables RUN OUT.md`          what that measured of motions, by source expression and angle
`python -m mini train --checkpoints FOLDER [...]`  train the miniature's networks, or go on with it
`python -m mini ship --checkpoints FOLDER --to OUT`  the trained networks as they ship, and their model card
`python -m mini restore --checkpoints FOLDER --from OUT`  what shipped as stored stages, to train one of them again
`python -m mini export --from OUT --to FOLDER`     what shipped as diffusers and transformers keep models
`python -m mini prepare --from OUT --to FOLDER`    what the method's own trainings start from: that, people, recipes
`python -m mini keep FILE --to OUT`                a DynamicID trained so, as it ships
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2

# The module that holds a command's function, whose parameters are the command's arguments; what it does. Modules are
# imported when they are needed: most need torch.
COMMANDS = {
    "sheet": ("world.sheet", "write_sheet", "draw a contact sheet"),
    "standard-face": ("train.standard_face", "write_standard_face", "write the face of Edit Facial Motion's panel"),
    "experiments": ("train.experiments", "write_experiments", "write the experiments' configuration"),
    "results": ("train.results", "keep_results", "keep what an evaluation measured"),
    "motion-tables": ("train.motion_results", "write_motion_tables", "write what an evaluation measured of motions"),
    "train": ("train.command", "train", "train the networks, or go on with it"),
    "ship": ("train.command", "ship_all", "write the trained networks as they ship, and their model card"),
    "restore": ("train.ship", "restore", "take what shipped as stored stages"),
    "export": ("train.export", "export", "write what shipped as diffusers and transformers keep models"),
    "prepare": ("train.prepare", "prepare", "make what the method's own trainings start from"),
    "keep": ("train.ship", "keep_dynamicid", "let the miniature ship with a DynamicID"),
}
STAGES = ("autoencoder", "judge", "vision", "text", "unet", "flux", "face-pack", "expression")
"""In the order in which they are trained: each may use what those before it stored."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m mini", description="The miniature world.")
    commands = parser.add_subparsers(dest="command", required=True)
    add = {name: commands.add_parser(name, help=what).add_argument for name, (*_, what) in COMMANDS.items()}
    to: dict[str, Any] = {"dest": "folder", "type": Path, "required": True, "metavar": "FOLDER"}
    files: dict[str, Any] = {"type": Path, "nargs": "*", "default": ()}

    add["sheet"]("path", type=Path, metavar="OUT", help="the PNG to write")
    add["standard-face"]("path", type=Path, metavar="OUT", help="the pack's web/standard_face.js")
    add["experiments"]("--to", **to, help="where it and references go")
    add["experiments"]("--pictures", type=int, default=100, help="of a row, at least")
    add["experiments"](
        "--trained",
        **files,
        metavar="FILE",
        help="of ungated, gated, contrastive, ungated_imr, plain_ungated, plain_gated",
    )
    add["experiments"]("--only", nargs="*", default=(), metavar="NAME", help="these benchmarks; all of them otherwise")
    add["experiments"]("--seed", type=int, default=0, help="another draws other samples")
    add["results"]("run", type=Path, metavar="RUN", help="an evaluation's output")
    add["results"]("--to", **to, help="the miniature's folder")
    add["motion-tables"]("run", type=Path, metavar="RUN", help="an evaluation's output")
    add["motion-tables"]("path", type=Path, metavar="OUT", help="the Markdown file to write")
    add["train"]("--stage", choices=STAGES, help="this one alone; all of them otherwise")
    add["train"]("--until", type=int, metavar="STEP", help="stop at this step; a later run goes on from there")
    add["train"]("--device", help="by default cuda where there is one")
    add["train"]("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    add["train"]("--seed", type=int, default=0)
    add["ship"]("--to", **to, help="where the weights go; card and pictures: beside it")
    add["export"]("--to", **to, help="where the models go")
    add["export"]("--base", choices=("UNet", "Flux"), default="UNet", help="what draws")
    add["prepare"]("--to", **to, help="where all of it goes")
    add["prepare"]("--portraits", type=int, default=12_000, help="for the anchoring stage")
    add["prepare"]("--sets", type=int, default=130, metavar="PEOPLE", help="for the reconfiguration stage")
    add["keep"]("trained", type=Path, metavar="FILE", help="what a training of the method wrote")
    add["keep"]("--to", **to, help="the miniature's weights")
    add["keep"]("--trainings", **files, metavar="FOLDER", help="whose curves and samples are kept beside them")
    for name in ("train", "ship", "restore"):
        add[name]("--checkpoints", type=_outside, required=True, metavar="FOLDER", help="where stages are stored")
    for name in ("train", "ship"):
        add[name]("--threads", type=int, help="of the CPU; as many as torch takes by itself otherwise")
    for name in ("restore", "export", "prepare"):
        add[name]("--from", **to | {"dest": "shipped"}, help="the shipped files")
    return parser


def _outside(text: str) -> Path:
    folder = Path(text).expanduser().resolve()
    if folder.is_relative_to(Path(__file__).resolve().parents[1]):
        raise argparse.ArgumentTypeError(f"expected a folder outside the checkout for the checkpoints, got {folder}")
    return folder


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    arguments = vars(parser().parse_args(argv))
    module, function, _ = COMMANDS[arguments.pop("command")]
    cv2.setNumThreads(1)
    try:
        result = getattr(import_module(f".{module}", __package__), function)(**arguments)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if isinstance(result, Path):
        print(result)
    return int(result is False)


if __name__ == "__main__":
    raise SystemExit(main())
