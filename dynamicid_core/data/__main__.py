"""The command line: `python -m dynamicid_core.data build SOURCE OUT --face-pack FOLDER [...]`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, get_args

import torch

from ..configuration import plain_errors
from ..identity.analyzer import PROVIDERS
from .executors import Executor, local_executor, ray_executor
from .pipeline import Summary, build
from .settings import RENAMED, BuildJob, BuildSettings, fingerprint


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Return 0, or 1 after a message on stderr that says what is wrong."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    arguments = _parser().parse_args(argv)
    try:
        job = _job(arguments)
        executor: AbstractContextManager[Executor] = nullcontext(local_executor(job))
        if arguments.ray is not None:
            executor = ray_executor(job, arguments.ray or None, arguments.ray_workers)
        with executor as execute:
            print(_describe(build(job, arguments.out, execute, arguments.rebuild), arguments.out))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dynamicid_core.data", description=__doc__)
    command = parser.add_subparsers(required=True, metavar="command").add_parser(
        "build", help="make a set, or finish making it", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    command.add_argument("source", type=Path, help="a folder of one folder of pictures per person")
    command.add_argument("out", type=Path, help="the folder to write to")
    command.add_argument("--face-pack", type=Path, required=True, help="folder of buffalo_l's ONNX files")
    command.add_argument("--provider", default="auto", choices=("auto", *PROVIDERS), help="what runs the ONNX files")
    command.add_argument("--bgr", action="store_true", help="embed faces in BGR, not in RGB as the release does")
    command.add_argument("--expression-model", type=Path, metavar="FILE", help="classifier for the others, ONNX")
    command.add_argument("--adapter", type=Path, metavar="FILE", help="with its face encoder, tokens are made")
    command.add_argument("--clip-vision", type=Path, metavar="PATH", help="CLIP for the tokens: a folder or a file")
    command.add_argument("--device", help="of the tokens: cpu, cuda; by default cuda where there is one", default="")
    command.add_argument("--rebuild", action="store_true", help="throw away what an earlier build left in OUT")
    command.add_argument("--ray", nargs="?", const="", metavar="ADDRESS",
        help="work on a Ray cluster; without an address, on one started here")  # fmt: skip
    command.add_argument("--ray-workers", type=int, help="by default as many as the cluster has CPUs")
    for name, field in BuildSettings.model_fields.items():
        if field.description is None:
            continue
        flags = [f"--{n.replace('_', '-')}" for n in (name, *(old for old, new in RENAMED.items() if new == name))]
        kind: dict[str, Any] = {"type": field.annotation}
        if isinstance(field.default, bool):
            kind = {"action": "store_true"}
        elif isinstance(field.default, str):
            kind = {"choices": get_args(field.annotation)}
        command.add_argument(*flags, default=field.default, help=field.description, **kind)
    return parser


def _job(arguments: argparse.Namespace) -> BuildJob:
    if bool(arguments.adapter) != bool(arguments.clip_vision):
        raise ValueError("Tokens need both --adapter and --clip-vision, got one of them. Give both, or neither.")
    values = vars(arguments)
    files = {name: values[name] for name in ("face_pack", "expression_model", "adapter", "clip_vision")}
    options = {name: value for name, value in values.items() if name in BuildSettings.model_fields}
    patterns = {"face_pack": "*.onnx"}
    options |= {name: fingerprint(path, patterns.get(name, "*")) if path else "" for name, path in files.items()}
    with plain_errors():
        settings = BuildSettings(embeds_rgb=not arguments.bgr, **options)
    return BuildJob(
        settings=settings,
        source=arguments.source.absolute(),
        provider=arguments.provider,
        device=arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        **{name: path and path.absolute() for name, path in files.items()},
    )


def _describe(summary: Summary, out: Path) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.rejected.items()) or "none"
    state = "" if summary.fresh else " (nothing changed)"
    return (
        f"{out}: {summary.images} pictures of {summary.people} people in {summary.shards} shards{state}; "
        f"left out: {reasons}"
    )


if __name__ == "__main__":
    sys.exit(main())
