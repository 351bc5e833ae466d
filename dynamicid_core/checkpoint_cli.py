"""`python -m dynamicid_core.checkpoint`: converts DynamicID's weight files and shows what is in them."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from .checkpoint import (
    ADAPTER,
    FACE_ENCODER,
    IMR,
    KEYPOINT_ENCODER,
    Checkpoint,
    load_checkpoint,
    parts_of,
    save_checkpoint,
)
from .identity.encoder import FaceEncoder
from .imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from .messages import shown
from .saa.adapter import Adapter
from .saa.bases import BASES, UNET
from .state_dict import fingerprint

_COLUMNS = ("part", "tensors", "values", "size", "dtype", "tokens", "rank", "depth", "shapes", "sha256")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 after one line on stderr that says what is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def table(checkpoint: Checkpoint) -> str:
    """Return one line per part: sizes read from its shapes, and the first 12 digits of its fingerprint."""
    rows = [_COLUMNS]
    for part, weights in parts_of(checkpoint).items():
        tensors = weights.values()
        values, size = sum(tensor.numel() for tensor in tensors), sum(tensor.nbytes for tensor in tensors) / 2**20
        dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors if tensor.is_floating_point()})
        rows.append((
            part, str(len(weights)), f"{values:,}", f"{size:.1f} MiB", " ".join(dtypes),
            *_sizes(part, weights, checkpoint.adapter), fingerprint(weights)[:12],
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dynamicid_core.checkpoint", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    convert = commands.add_parser("convert", help="put the parts of one or several files into one safetensors file")
    convert.add_argument("inputs", nargs="+", type=Path, metavar="A", help="SAA.bin, IMR.bin, ... or safetensors files")
    convert.add_argument("output", type=Path, metavar="OUT", help="the safetensors file to write")
    convert.add_argument("--half", action="store_true", help="store weights in float16: half of the size")
    convert.add_argument("--overwrite", action="store_true", help="replace OUT if there is one")
    convert.set_defaults(run=_convert)

    inspect = commands.add_parser("inspect", help="show what is in a file")
    inspect.add_argument("file", type=Path, metavar="FILE")
    inspect.set_defaults(run=lambda arguments: print(table(load_checkpoint(arguments.file))))
    return parser


def _convert(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output
    # with OUT forgotten, the last input would be taken for it
    if output.suffix != ".safetensors":
        raise ValueError(f"{shown(output)}: expected the file to write, last, with a name that ends in .safetensors.")
    if output.exists() and not arguments.overwrite:
        raise ValueError(f"{shown(output)}: there is such a file already. Give another name, or --overwrite.")
    # it is still read from while the new one is written
    if output.exists() and any(path.exists() and path.samefile(output) for path in arguments.inputs):
        raise ValueError(f"{shown(output)}: expected a file other than those that are read. Give another name.")
    checkpoint = load_checkpoint(*arguments.inputs, decode=_half if arguments.half else dict)
    save_checkpoint(checkpoint, output)
    print(table(checkpoint))
    print(f"written to {shown(output)}")


def _half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in float16; what is not floating point stays as it is."""
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def _sizes(part: str, weights: Mapping[str, Tensor], adapter: Adapter | None) -> tuple[str, str, str, str]:
    """Return token count, rank, depth and dims of a part, `-` where it has no such thing."""
    if part == ADAPTER and adapter:
        dims = " ".join(map(str, sorted(set(adapter.dims))))
        tokens = "-" if adapter.tokens is None else str(adapter.tokens)
        text = "" if adapter.text_dim is None else f"text of {adapter.text_dim}, "
        shape = f"layers of {dims}, {text}tokens of {adapter.token_dim}"
        if adapter.base != UNET:
            shape += f", for {BASES[adapter.base].title}"
        return tokens, str(adapter.rank), str(len(adapter.dims)), shape
    if part == FACE_ENCODER:
        encoder = FaceEncoder.shaped_like(weights)
        shape = f"embedding of {encoder.embedding_dim}, CLIP of {encoder.clip_dim}, tokens of {encoder.dim}"
        return str(encoder.tokens), "-", str(len(encoder.perceiver_resampler.layers)), shape
    if part == IMR:
        imr = IdentityMotionReconfigurator.shaped_like(weights)
        shape = f"motion of {imr.motion_dim}, {imr.latents} latents of {imr.norm_out.weight.shape[0]}, "
        return "-", "-", str(len(imr.disentangleNet)), shape + f"tokens of {imr.token_dim}"
    assert part == KEYPOINT_ENCODER
    keypoints = KeypointEncoder.shaped_like(weights)
    side = keypoints.image_side
    return "-", "-", str(len(keypoints.blocks)), f"{side}x{side} to {keypoints.output_dim}"
