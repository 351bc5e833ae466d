"""The demo: queues graphs of the miniature on a real ComfyUI server and tells where the images are.

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
TEMPLATES = PACK / "workflows"
NAMES = ("mini_01_one_person", "mini_02_two_people", "mini_03_three_people", "mini_14_with_and_without")


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def similarities(report: str) -> list[float]:
    """Return each person's similarity to their face from a report of Who Is Who; who has no face is left out."""
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
        log("starting ComfyUI with the pack")
        with server(options.command, options.output / "demo.log") as client:
            nodes = client.get("/object_info")
            for template in NAMES:
                log(f"queueing the template {template}")
                outputs = client.outputs(api_graph(TEMPLATES / f"{template}.json", nodes))
                reports += [text for node in outputs.values() for text in node.get("text", [])]
                for image in saved_images(outputs):
                    pictures.append(str(options.output / image["subfolder"] / image["filename"]))
                    if not options.json:
                        print(pictures[-1], flush=True)
    except (OSError, ServerError, ValueError) as error:
        log(f"error: {error}")
        return 1
    seconds = time.monotonic() - begun
    for report in reports:
        log(f"how much faces are their people's (Who Is Who):\n{report}")
    log(f"{len(pictures)} pictures in {seconds:.0f} seconds.")
    if options.json:
        values = [value for report in reports for value in similarities(report)]
        summary = {"pictures": pictures, "seconds": round(seconds, 1), "adapter": "trained", "similarity": values}
        print(json.dumps(summary), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
