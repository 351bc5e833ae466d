"""The demo: graphs of the miniature, queued on a real ComfyUI server, and where the pictures are.

`python dev.py demo` runs it: python -m dynamicid_core.evaluation.demo [--json] --output FOLDER -- SERVER COMMAND
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .client import ServerError, saved_images, server
from .template import api_graph

PACK = Path(__file__).resolve().parents[2]
TEMPLATES, TRAINED = PACK / "workflows", PACK / "mini" / "weights" / "dynamicid.safetensors"
SHOWN = ("mini_01_one_person", "mini_02_two_people", "mini_03_three_people", "mini_14_with_and_without")


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def similarities(report: str) -> list[float]:
    """Of a report of Who Is Who the similarity of each person to the face that is theirs; who has none is left out."""
    return [float(value) for value in re.findall(r"\[(-?\d\.\d+)\]", report)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON: pictures, seconds, similarity")
    parser.add_argument("--output", type=Path, required=True, help="the server's folder for pictures")
    parser.add_argument("command", nargs="+", help="what starts the server")
    options = parser.parse_args(argv)
    begun = time.monotonic()
    pictures: list[str] = []
    reports: list[str] = []
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        say("starting ComfyUI with the pack")
        with server(options.command, options.output / "demo.log") as client:
            nodes = client.get("/object_info")
            for template in SHOWN:
                say(f"queueing the template {template}")
                shown = client.outputs(api_graph(TEMPLATES / f"{template}.json", nodes))
                reports += [text for node in shown.values() for text in node.get("text", [])]
                for saved in saved_images(shown):
                    pictures.append(str(options.output / saved["subfolder"] / saved["filename"]))
                    if not options.json:
                        print(pictures[-1], flush=True)
    except (OSError, ServerError, ValueError) as error:
        say(f"error: {error}")
        return 1
    seconds = time.monotonic() - begun
    for report in reports:
        say(f"how much faces are their people's (Who Is Who):\n{report}")
    say(f"{len(pictures)} pictures in {seconds:.0f} seconds.")
    if options.json:
        said = {
            "pictures": pictures, "seconds": round(seconds, 1),
            "adapter": "trained" if TRAINED.exists() else "untrained",
            "similarity": [value for report in reports for value in similarities(report)],
        }  # fmt: skip
        print(json.dumps(said), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
