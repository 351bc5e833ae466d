"""The benchmarks' command line: measures, shows progress on stderr, prints the tables and writes the JSON file."""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management
import torch

from . import report
from .counting import Tally, counted_calls, counted_flops
from .steps import Step, step_on_meta, with_open_runs
from .subjects import full_size_model, random_adapter, with_people
from .timing import Comparison, compare, peak_memory

RESULTS = Path(__file__).resolve().parent / "results"


def main(argv: Sequence[str]) -> None:
    options = _parse(argv)
    on_gpu = torch.cuda.is_available()
    dtype = torch.float16 if on_gpu else torch.float32
    pairs = options.pairs or (2 if options.quick else 100 if on_gpu else 4)
    sizes = options.size or ([(256, 256)] if options.quick else [(512, 512), (768, 512)])
    people = options.people or ([2] if options.quick else [1, 2, 4])
    facts = report.machine(importlib.import_module("comfyui_version").__version__, dtype)
    results: report.Row = {"machine": facts, "pairs": pairs, "times": [], "counts": [], "memory": []}

    torch.manual_seed(0)
    with torch.inference_mode():
        _say("making a full-size UNet of random numbers")
        model = full_size_model(comfy.model_management.get_torch_device(), dtype)
        adapter = random_adapter(model)
        models = [with_people(model, adapter, count) for count in (0, *people)]
        ghost = full_size_model(torch.device("meta"), dtype)
        ghosts = [with_people(ghost, adapter, count) for count in (0, *people)]

        for size in sizes:
            name = "{}x{}".format(*size)
            flops = [_flops(one, size) for one in ghosts]
            unet = model.model.diffusion_model
            times, calls = with_open_runs(models, size, partial(_measure, unet=unet, pairs=pairs, size=name))
            results["times"] += [report.time_row(name, *row) for row in zip((0, *people), times, strict=True)]
            results["counts"] += [
                report.count_row(name, count, (flops[0], flops[index]), (calls[0], calls[index]))
                for index, count in enumerate(people, 1)
            ]
            if on_gpu:
                peaks = [with_open_runs([one], size, lambda steps: peak_memory(steps[0])) for one in models]
                results["memory"] += [
                    {"size": name, "people": count, "without": peaks[0], "with": peak}
                    for count, peak in zip(people, peaks[1:], strict=True)
                ]

    print(report.text(results))
    path = options.json or (None if options.quick else RESULTS / f"{report.device_name(facts)}.json")
    if path is not None:
        report.write(results, path)
        _say(f"wrote {path}")


def _flops(model: Any, size: Sequence[int]) -> Tally:
    """Floating-point operations of a step; the second, since the first of a run prepares what the others reuse."""
    step = step_on_meta(model, size)
    step()
    with counted_flops(model.model.diffusion_model) as tally:
        step()
    return tally


def _measure(
    steps: Sequence[Step], unet: torch.nn.Module, pairs: int, size: str
) -> tuple[list[Comparison], list[Tally]]:
    """Times of each model against the first (the first against itself, too), and each one's operator calls."""
    calls = []
    for number, step in enumerate(steps, 1):
        _say(f"{size}: first steps and operator calls, model {number} of {len(steps)}")
        _check(step, unet)
        with counted_calls(unet) as tally:
            step()
        calls.append(tally)

    begun, done, all_pairs = time.monotonic(), 0, pairs * len(steps)

    def progress() -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - begun) / done * (all_pairs - done)
        _say(f"{size}: pair {done} of {all_pairs}, {left:.0f} s left")

    return compare(steps[0], steps, pairs, progress), calls


def _check(step: Step, unet: torch.nn.Module) -> None:
    """Take a step, and make sure that it is one call of the UNet with both halves of guidance, with finite numbers."""
    rows: list[int] = []
    watch = unet.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[0]))
    try:
        out = step()
    finally:
        watch.remove()
    if rows != [2]:
        raise SystemExit(f"benchmarks: expected one UNet call of 2 rows, the host made {rows}: is memory short?")
    if not bool(torch.isfinite(out).all()):
        raise SystemExit("benchmarks: the UNet gave numbers that are not finite.")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py bench", description="What people in a picture cost.")
    parser.add_argument("--people", type=_positive, nargs="+", metavar="N", help="how many people (default: 1 2 4)")
    parser.add_argument("--size", type=_size, nargs="+", metavar="WxH", help="pictures (default: 512x512 768x512)")
    parser.add_argument("--pairs", type=_positive, metavar="N", help="timed pairs (default: 4, on a GPU 100)")
    parser.add_argument("--quick", action="store_true", help="2 people at 256x256 in 2 pairs; writes no file by itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/<device>.json")
    return parser.parse_args(argv)


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {word}")
    return number


def _size(word: str) -> tuple[int, int]:
    parts = word.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) >= 64 and int(part) % 8 == 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected width x height in multiples of 8 from 64, as 512x512, got {word}")
    return int(parts[0]), int(parts[1])


def _say(message: str) -> None:
    print(f"benchmarks: {message}", file=sys.stderr, flush=True)
