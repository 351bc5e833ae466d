"""The command line: `python -m dynamicid_core.data build SOURCE OUT --face-pack FOLDER [...]`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..identity.analyzer import PROVIDERS
from .build import Summary, build
from .on_ray import hands_on_ray
from .settings import Job, Settings, fingerprint
from .work import own_hand

_NUMBERS = {  # the settings that are numbers, and what their help says
    "size": "pixels a side of the crops",
    "margin": "of the face's longer side, on each side of it",
    "least_face": "pixels of the face's longer side in the picture",
    "least_sharpness": "variance of the Laplacian of the face brought to 128 x 128",
    "duplicate_distance": "bits of 256 in which two pictures of a person must differ more than this",
    "least_alike": "cosine between a face's embedding and its person's median",
    "apart": "with --unsorted, cosine distance from which on two groups of faces are two people",
    "per_person": "pictures kept of a person at most, spread over expressions and yaws",
    "least_pictures": "people of whom fewer are left are left out",
    "most_pixels": "height times width; larger pictures are not decoded",
    "per_shard": "pictures of a shard, as near as whole people make it",
    "threads": "of PyTorch on the CPU; another number may change the tokens' last bit",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 1 after one line on stderr that says what is wrong."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    arguments = _parser().parse_args(argv)
    try:
        print(_told(_build(arguments), arguments.out))
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
    command.add_argument("--unsorted", action="store_true", help="SOURCE is one folder of pictures of unknown people")
    command.add_argument("--face-pack", type=Path, required=True, help="folder of buffalo_l's ONNX files")
    command.add_argument("--provider", default="auto", choices=("auto", *PROVIDERS), help="what runs the ONNX files")
    command.add_argument("--bgr", action="store_true", help="embed faces in BGR, not in RGB as the release does")
    command.add_argument("--expression-from", choices=("sidecar", "name"), default="sidecar",
        help="NAME.txt is always asked first; name: then the names of the file and its folders")  # fmt: skip
    command.add_argument("--expression-model", type=Path, metavar="FILE", help="classifier for the others, ONNX")
    command.add_argument("--adapter", type=Path, metavar="FILE", help="with its face encoder, tokens are made")
    command.add_argument("--clip-vision", type=Path, metavar="PATH", help="CLIP for the tokens: a folder or a file")
    command.add_argument("--device", help="of the tokens: cpu, cuda; where there is CUDA that, unless said", default="")
    command.add_argument("--rebuild", action="store_true", help="throw away what an earlier build left in OUT")
    command.add_argument("--ray", nargs="?", const="", metavar="ADDRESS",
        help="work on a Ray cluster; without an address, on one started here")  # fmt: skip
    command.add_argument("--ray-workers", type=int, help="as many as the cluster has CPUs, unless said")
    kinds = {field.name: type(field.default) for field in fields(Settings)}
    defaults = Settings()
    for name, told in _NUMBERS.items():
        option = f"--{name.replace('_', '-')}"
        command.add_argument(option, type=kinds[name], default=getattr(defaults, name), help=told)
    return parser


def _build(arguments: argparse.Namespace) -> Summary:
    job = _job(arguments)
    with ExitStack() as stack:
        if arguments.ray is None:
            work = own_hand(job)
        else:
            work = stack.enter_context(hands_on_ray(job, arguments.ray or None, arguments.ray_workers))
        return build(job, arguments.out, work, arguments.rebuild)


def _job(arguments: argparse.Namespace) -> Job:
    if bool(arguments.adapter) != bool(arguments.clip_vision):
        raise ValueError("Tokens need both --adapter and --clip-vision, got one of them. Give both, or neither.")
    given = {name: getattr(arguments, name) for name in ("expression_model", "adapter", "clip_vision")}
    values: dict[str, Any] = {name: getattr(arguments, name) for name in _NUMBERS}
    values |= {name: fingerprint(path) if path else "" for name, path in given.items()}
    settings = Settings(
        unsorted=arguments.unsorted,
        embeds_rgb=not arguments.bgr,
        names=arguments.expression_from == "name",
        face_pack=fingerprint(arguments.face_pack, "*.onnx"),
        **values,
    )
    return Job(
        settings=settings,
        source=str(arguments.source.absolute()),
        face_pack=str(arguments.face_pack.absolute()),
        provider=arguments.provider,
        device=arguments.device or _best_device(),
        **{name: str(path.absolute()) if path else "" for name, path in given.items()},
    )


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _told(summary: Summary, out: Path) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.dropped.items()) or "none"
    state = "" if summary.fresh else " (nothing changed)"
    return (
        f"{out}: {summary.pictures} pictures of {summary.people} people in {summary.shards} shards{state}; "
        f"left out: {reasons}"
    )
