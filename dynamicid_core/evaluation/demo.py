"""The demo: graphs of the miniature, queued on a real ComfyUI server, and where the pictures are.

`python dev.py demo` runs it: python -m dynamicid_core.evaluation.demo [--json] --output FOLDER -- SERVER COMMAND
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .client import ServerError, server
from .template import api_graph

TEMPLATES = Path(__file__).resolve().parents[2] / "workflows"
SHOWN = ("mini_01_one_person", "mini_02_two_people", "mini_03_three_people")
UNTRAINED = "The miniature's DynamicID is not trained yet: who is in these pictures follows from their text alone."


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON: pictures, seconds")
    parser.add_argument("--output", type=Path, required=True, help="the server's folder for pictures")
    parser.add_argument("command", nargs="+", help="what starts the server")
    options = parser.parse_args(argv)
    begun = time.monotonic()
    pictures: list[str] = []
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        say("starting ComfyUI with the pack")
        with server(options.command, options.output / "demo.log") as client:
            nodes = client.get("/object_info")
            for template in SHOWN:
                say(f"queueing the template {template}")
                for saved in client.run(api_graph(TEMPLATES / f"{template}.json", nodes)):
                    pictures.append(str(options.output / saved["subfolder"] / saved["filename"]))
                    if not options.json:
                        print(pictures[-1], flush=True)
    except (OSError, ServerError, ValueError) as error:
        say(f"error: {error}")
        return 1
    seconds = time.monotonic() - begun
    say(f"{len(pictures)} pictures in {seconds:.0f} seconds. {UNTRAINED}")
    if options.json:
        print(json.dumps({"pictures": pictures, "seconds": round(seconds, 1), "adapter": "untrained"}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
