"""Load DynamicID, and Load DynamicID Mini."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import comfy.clip_vision
import folder_paths
from comfy.clip_vision import ClipVisionModel
from comfy_api.latest import io

from ..dynamicid_core.host import folders
from ..dynamicid_core.host.miniature import load_miniature
from ..dynamicid_core.host.models import load_dynamicid
from ..dynamicid_core.identity.analyzer import PROVIDERS, load_analyzer
from .sockets import PEOPLE_ALIASES, DynamicIDSocket

SHIPPED = "shipped"


class LoadDynamicID(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folders.adapter_files()
        return io.Schema(
            node_id="DynamicIDLoader",
            display_name="Load DynamicID",
            category="DynamicID/load",
            description="Loads DynamicID's weights from models/dynamicid. Connect it to Apply DynamicID.",
            search_aliases=PEOPLE_ALIASES,
            inputs=[
                io.Combo.Input(
                    "saa",
                    options=files,
                    tooltip="The adapter from models/dynamicid: the release's SAA.bin, or one safetensors file "
                    "made by `python -m dynamicid_core.checkpoint convert`.",
                ),
                io.Combo.Input(
                    "imr",
                    options=[folders.NONE, *files],
                    default=folders.NONE,
                    tooltip="The weights that change expression and pose, if they lie in a file of their own. "
                    "None: taken from the adapter's file if that holds them.",
                ),
                io.Combo.Input(
                    "clip_vision",
                    options=[folders.NONE, *folder_paths.get_filename_list("clip_vision")],
                    default=folders.NONE,
                    optional=True,
                    tooltip="CLIP ViT-H from models/clip_vision, for Encode Identity. Loaded when it is first used.",
                ),
                io.Combo.Input(
                    "face_pack",
                    options=[folders.NONE, *folders.face_packs()],
                    default=folders.NONE,
                    optional=True,
                    tooltip="buffalo_l from models/insightface/models, for Encode Identity. Loaded when it is first "
                    "used.",
                ),
                io.Combo.Input(
                    "provider",
                    options=["auto", *PROVIDERS],
                    default="auto",
                    optional=True,
                    tooltip="What onnxruntime analyses faces with. auto: the quickest that it offers.",
                ),
            ],
            outputs=[DynamicIDSocket.Output(display_name="dynamicid")],
        )

    @classmethod
    def fingerprint_inputs(
        cls,
        saa: str,
        imr: str = folders.NONE,
        clip_vision: str = folders.NONE,
        face_pack: str = folders.NONE,
        provider: str = "auto",
    ) -> list[tuple[str, int, int]]:
        """A file replaced under the same name is loaded again."""
        paths = [*map(folders.adapter_path, _chosen(saa, imr))]
        if clip_vision != folders.NONE:
            paths.append(_vision_path(clip_vision))
        if face_pack != folders.NONE:
            paths += sorted(_pack_path(face_pack).glob("*.onnx"))
        return _versions(paths)

    @classmethod
    def execute(
        cls,
        saa: str,
        imr: str = folders.NONE,
        clip_vision: str = folders.NONE,
        face_pack: str = folders.NONE,
        provider: str = "auto",
    ) -> io.NodeOutput:
        weights = [*map(folders.adapter_path, _chosen(saa, imr))]
        load_vision = None if clip_vision == folders.NONE else partial(_load_vision, _vision_path(clip_vision))
        load_faces = None if face_pack == folders.NONE else partial(load_analyzer, _pack_path(face_pack), provider)
        return io.NodeOutput(
            load_dynamicid(weights[0], weights[-1] if len(weights) > 1 else None, load_vision, load_faces)
        )


class LoadDynamicIDMini(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDMini",
            display_name="Load DynamicID Mini",
            category="DynamicID/load",
            description="Loads the miniature that comes with the pack: a small SD1.5 that draws people as flat "
            "illustrations, 128 pixels high. It needs no other file, and its DynamicID is trained for it.",
            search_aliases=PEOPLE_ALIASES,
            inputs=[
                io.Combo.Input(
                    "adapter",
                    options=[SHIPPED, *folders.adapter_files()],
                    default=SHIPPED,
                    optional=True,
                    tooltip="The DynamicID that comes with the miniature, or one from models/dynamicid that you "
                    "trained for it.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
                DynamicIDSocket.Output(display_name="dynamicid"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str = SHIPPED) -> list[tuple[str, int, int]]:
        """A file replaced under the same name is loaded again."""
        return [] if adapter == SHIPPED else _versions([folders.adapter_path(adapter)])

    @classmethod
    def execute(cls, adapter: str = SHIPPED) -> io.NodeOutput:
        miniature = load_miniature(adapter=None if adapter == SHIPPED else folders.adapter_path(adapter))
        return io.NodeOutput(miniature.model, miniature.clip, miniature.vae, miniature.dynamicid)


def _versions(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    return [(path.name, stat.st_mtime_ns, stat.st_size) for path in paths for stat in [path.stat()]]


def _vision_path(name: str) -> Path:
    return Path(folder_paths.get_full_path_or_raise("clip_vision", name))


def _pack_path(name: str) -> Path:
    packs = folders.face_packs()
    if name not in packs:
        raise FileNotFoundError(
            f"There is no face pack {name!r} in models/insightface. Put its folder into models there."
        )
    return packs[name]


def _load_vision(path: Path) -> ClipVisionModel:
    model = comfy.clip_vision.load(str(path))
    if model is None:
        raise ValueError(f"{path.name} is no CLIP vision model. Choose CLIP ViT-H (laion2B-s32B-b79K) as clip_vision.")
    return model


def _chosen(saa: str, imr: str) -> list[str]:
    return [saa] if imr == folders.NONE else [saa, imr]
