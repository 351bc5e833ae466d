"""`python -m dynamicid_core.training anchor|reconfigure --config FILE`; several processes by `accelerate launch -m`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage. Return the exit status: 1 after an error, or when the training was told to stop."""
    parser = argparse.ArgumentParser(prog="python -m dynamicid_core.training", description="Train the method's parts.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("anchor", "SAA and the face encoder, on images of one person each"),
        ("reconfigure", "IMR and its keypoint encoder, on several images of each person"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration, in JSON")
        command.add_argument("--until", type=int, metavar="STEP", help="stop at this step; a later run goes on there")
    arguments = parser.parse_args(argv)
    try:
        from . import stages
    except ModuleNotFoundError as error:
        print(f"{error.name} is missing: python -m pip install '.[training]' in the pack's folder", file=sys.stderr)
        return 1
    try:
        trainer = stages.STAGES[arguments.command](arguments.config, arguments.until)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(trainer.stopped)


if __name__ == "__main__":
    sys.exit(main())
