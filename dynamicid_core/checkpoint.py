"""DynamicID's weight files: the release's `.bin`s and one safetensors file with all parts, told apart by content.

IP-Adapter FaceID's files are read, too: they hold the same two networks under other names.

`python -m dynamicid_core.checkpoint convert A [B C] OUT` goes from the first to the second; `inspect FILE` shows one.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from .files import atomic_path
from .identity.encoder import FaceEncoder
from .identity.encoding import DYNAMICID, ENCODINGS, kind_of
from .imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from .messages import about, printable, shown
from .saa.adapter import Adapter, adapter_from_weights, check_adapter
from .saa.bases import ALL_BLOCKS, UNET
from .state_dict import Weights, fingerprint, listed
from .tensor_file import open_tensors, write_tensors

__all__ = ["Adapter", "Checkpoint", "base_metadata", "load_checkpoint", "parts_of", "save_checkpoint"]

FORMAT = "dynamicid-1"
ADAPTER, FACE_ENCODER, IMR, KEYPOINT_ENCODER = "SAA_module", "proj_module", "imr", "keypoint_encoder"

_FACEID = {ADAPTER: "ip_adapter", FACE_ENCODER: "image_proj"}  # what IP-Adapter FaceID's files call them
_PREFIXES = {
    **{part: part for part in (ADAPTER, FACE_ENCODER, IMR, KEYPOINT_ENCODER)},
    **{theirs: part for part, theirs in _FACEID.items()},
    "adapter_modules": ADAPTER,  # what one script of the release calls it
}
# a file that holds one part alone, as the release's IMR and keypoint encoder do, has no prefixes
_ALONE = {
    IMR: re.compile(r"(disentangleNet|entangleNet|feature_fusion)\."),
    KEYPOINT_ENCODER: re.compile(r"blocks\.\d+\.\d+\.conv_block\."),
}
_CHECKS: dict[str, Callable[[Weights], None]] = {
    FACE_ENCODER: FaceEncoder.check,
    IMR: IdentityMotionReconfigurator.check,
    KEYPOINT_ENCODER: KeypointEncoder.check,
}
Decode = Callable[[dict[str, Tensor]], dict[str, Tensor]]
_COUNTER = "num_batches_tracked"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The parts of DynamicID that some files held, checked; tensors are on the CPU in the files' dtype.

    Attributes:
        kind: how its face encoder is shown a person, a name of `encoding.ENCODINGS`.
    """

    adapter: Adapter | None
    face_encoder: dict[str, Tensor] | None
    imr: dict[str, Tensor] | None
    keypoint_encoder: dict[str, Tensor] | None
    kind: str = DYNAMICID

    def __repr__(self) -> str:
        return f"Checkpoint({', '.join(parts_of(self))})"


def load_checkpoint(
    *paths: str | os.PathLike[str], file_format: str = FORMAT, decode: Decode = dict, kind: str | None = None
) -> Checkpoint:
    """Read and check the parts that the files hold together: DynamicID's, or IP-Adapter FaceID's.

    Args:
        file_format: what a file of ours must say that it is.
        decode: makes the parts' tensors out of a file's, for a format that keeps them in a way of its own.
        kind: a name of ENCODINGS; None: told by the file's content and, where that can't tell, its name.

    Raises FileNotFoundError where there is no file, OSError where it can't be read, and ValueError, naming the file and
    the tensor, for one that is damaged or of another kind, for missing and extra tensors, wrong shapes, values that are
    not finite, a part that comes twice, or an adapter and a face encoder that don't belong together.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    origin: dict[str, Path] = {}
    faceid_name, made_for = "", (UNET, ALL_BLOCKS)
    for path in map(Path, paths):
        with open_tensors(path) as file:
            if any(name.partition(".")[0] in _FACEID.values() for name in file.tensors):
                faceid_name = file.metadata.get("kind") or path.name
            # shapes tell another model before gigabytes of it are read
            with about(path):
                for part, weights in _parts(decode(file.tensors), file.metadata, file_format).items():
                    if part in parts:
                        raise ValueError(
                            f"holds {part}, which came from {shown(origin[part])} already. Expected every part once: "
                            "leave one of the two files out."
                        )
                    if part == ADAPTER:
                        made_for = _made_for(file.metadata, file_format)
                    _check(part, weights, made_for)
                    origin[part] = path
            values = file.read()
        with about(path):
            for part, weights in _parts(decode(values), file.metadata, file_format).items():
                _check_values(part, weights)
                parts[part] = weights

    encoder = parts.get(FACE_ENCODER)
    network = FaceEncoder.shaped_like(encoder) if encoder else None
    kind = _checked_kind(kind, faceid_name, network)
    adapter = None
    if ADAPTER in parts:
        adapter = adapter_from_weights(
            parts[ADAPTER], fingerprint(encoder) if encoder else "", network.tokens if network else None,
            ENCODINGS[kind], *made_for,
        )  # fmt: skip
        if network and network.dim != adapter.token_dim:
            raise ValueError(
                f"{shown(origin[ADAPTER])}: the adapter takes identity tokens of {adapter.token_dim}, the face encoder "
                f"in {shown(origin[FACE_ENCODER])} makes tokens of {network.dim}. Expected two that were trained "
                "together."
            )
    return Checkpoint(adapter, encoder, parts.get(IMR), parts.get(KEYPOINT_ENCODER), kind)


def _checked_kind(kind: str | None, faceid_name: str, network: FaceEncoder | None) -> str:
    """Return the given kind, or else the one that content and name tell; see `load_checkpoint`."""
    reads_images = network is None or network.clip_dim is not None
    kind = kind or kind_of(faceid_name, reads_images)
    if network is not None and (ENCODINGS[kind].crop != "none") != reads_images:
        has = "a" if reads_images else "no"
        raise ValueError(
            f"the face encoder has {has} resampler that reads CLIP's states, which {kind}'s has "
            f"{'not' if reads_images else 'one of'}. Choose another kind in Load DynamicID, or auto."
        )
    return kind


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write every part into one safetensors file, dtypes kept; an existing file is replaced once the new one is whole.

    Raises OSError when it can't be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{shown(path)}: there is no folder {shown(path.parent)} to write to.")
    tensors: dict[str, Tensor] = {}
    memory: set[int] = set()
    for part, weights in parts_of(checkpoint).items():
        for name, tensor in weights.items():
            whole = tensor.detach().cpu().contiguous()
            # safetensors refuses tensors that share memory, as tied or sliced weights do
            if whole.untyped_storage().data_ptr() in memory or whole.untyped_storage().nbytes() != whole.nbytes:
                whole = whole.clone()
            memory.add(whole.untyped_storage().data_ptr())
            tensors[f"{part}.{name}"] = whole
    try:
        with atomic_path(path) as part_file:
            part_file.touch()
            mode = part_file.stat().st_mode
            kind = {} if checkpoint.kind == DYNAMICID else {"kind": checkpoint.kind}
            made_for = base_metadata(checkpoint.adapter) if checkpoint.adapter else {}
            write_tensors(tensors, part_file, {"format": FORMAT, **kind, **made_for})
            part_file.chmod(mode)  # safetensors makes files that only their owner may read
    except SafetensorError as error:
        raise OSError(f"{shown(path)}: could not be written ({error}).") from error


def base_metadata(adapter: Adapter) -> dict[str, str]:
    """Return what an adapter's file says of its base model, see `saa/bases.py`; nothing for a UNet's."""
    if adapter.base == UNET:
        return {}
    return {"base": adapter.base, "identity_blocks": adapter.identity_blocks}


def _made_for(metadata: Mapping[str, str], file_format: str) -> tuple[str, str]:
    """Return the base model and the blocks with people that a file of ours tells of; a UNet's in any other file."""
    ours = metadata if metadata.get("format") == file_format else {}
    return ours.get("base", UNET), ours.get("identity_blocks", ALL_BLOCKS)


def parts_of(checkpoint: Checkpoint) -> dict[str, Mapping[str, Tensor]]:
    """Return the state dicts of the parts that are there, by the prefix of their tensors in a file."""
    names = {} if checkpoint.kind == DYNAMICID else _FACEID
    parts: dict[str, Mapping[str, Tensor] | None] = {
        ADAPTER: checkpoint.adapter.weights if checkpoint.adapter else None,
        FACE_ENCODER: checkpoint.face_encoder,
        IMR: checkpoint.imr,
        KEYPOINT_ENCODER: checkpoint.keypoint_encoder,
    }
    return {names.get(part, part): weights for part, weights in parts.items() if weights is not None}


def _parts(tensors: dict[str, Tensor], metadata: Mapping[str, str], file_format: str) -> dict[str, dict[str, Tensor]]:
    """Return a file's tensors by part, without prefixes."""
    stored = metadata.get("format", "")
    if stored.startswith("dynamicid") and stored != file_format:
        raise ValueError(f"expected weights of format {file_format}, this is a file of format {printable(stored)}.")

    parts: dict[str, dict[str, Tensor]] = {}
    prefixes: dict[str, str] = {}
    others = []
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        if not rest or prefix not in _PREFIXES:
            others.append(name)
            continue
        part = _PREFIXES[prefix]
        if prefixes.setdefault(part, prefix) != prefix:
            raise ValueError(f"{prefixes[part]} and {prefix} are the same part, expected one of them.")
        parts.setdefault(part, {})[rest] = tensor
    if parts and others:
        raise ValueError(
            f"besides {', '.join(parts)}, it holds tensors of no part of DynamicID ({listed(others)}). "
            "Leave them out, or name the part that they are of."
        )
    if prefixes.get(ADAPTER) == _FACEID[ADAPTER] and not any("_lora." in name for name in parts[ADAPTER]):
        raise ValueError(
            "it is an IP-Adapter without a LoRA (a plain one, a portrait or Kolors one), which nothing here is for. "
            "Expected FaceID, FaceID Plus or FaceID Plus v2, for SD1.5 or SDXL."
        )
    if parts:
        return parts
    for part, pattern in _ALONE.items():
        if any(map(pattern.match, tensors)):
            return {part: tensors}
    names = ", ".join(f"{prefix}.*" for prefix in _PREFIXES)
    raise ValueError(
        f"expected weights of DynamicID (tensors {names}, or an IMR or keypoint encoder alone), "
        f"found {listed(others) or 'no tensors'}. Is it another model, a LoRA, an IP-Adapter?"
    )


def _check(part: str, weights: Weights, made_for: tuple[str, str]) -> None:
    """Check names, shapes and dtypes of a part. Raises ValueError naming the part, the tensor and what is wrong."""
    try:
        if part == ADAPTER:
            check_adapter(weights, *made_for)
        else:
            _CHECKS[part](weights)
        for name, tensor in weights.items():
            if tensor.dtype not in _DTYPES and not name.endswith(_COUNTER):
                raise ValueError(
                    f"{name} is {tensor.dtype}, expected floating-point weights of 16 to 64 bits. Convert the weights "
                    "before use."
                )
            if not tensor.numel():
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}, which holds nothing. The file was badly made."
                )
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error


def _check_values(part: str, weights: Weights) -> None:
    for name, tensor in weights.items():
        # NaN is its own minimum
        if not name.endswith(_COUNTER) and not all(bound.isfinite() for bound in tensor.aminmax()):
            raise ValueError(
                f"{part}: {name} holds NaN or infinite values, expected finite ones. The training run diverged."
            )


if __name__ == "__main__":
    from .checkpoint_cli import main

    raise SystemExit(main())
