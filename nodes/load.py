"""Load DynamicID, and Load DynamicID Mini."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..dynamicid_core.expression_classifier import ExpressionClassifier
from ..dynamicid_core.host import folders
from ..dynamicid_core.host.folders import NONE
from ..dynamicid_core.host.miniature import BASES, DEFAULT_BASE, WEIGHTS, bases, load_miniature
from ..dynamicid_core.host.models import load_dynamicid
from ..dynamicid_core.host.report import loaded_report
from ..dynamicid_core.host.vision import load_vision
from ..dynamicid_core.identity.analyzer import PROVIDERS, load_analyzer
from ..dynamicid_core.identity.encoding import ENCODINGS
from .notify import tell
from .sockets import PEOPLE_ALIASES, DynamicIDSocket, choice

AUTO = "auto"
SHIPPED = "shipped"
Versions = list[tuple[str, int, int]]
"""Name, time of the last change and size of each file."""


class LoadDynamicID(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files, visions = folders.adapter_files(), folder_paths.get_filename_list("clip_vision")
        pack = "buffalo_l from models/insightface/models, for Encode Identity. Loaded when it is first used."
        provider = "What onnxruntime analyzes faces with. auto: the fastest that it offers."
        vision = "CLIP ViT-H from models/clip_vision, for Encode Identity. Loaded when it is first used."
        kind = (
            "Which family the adapter is of, which decides how photographs are encoded. auto: told by the file, FaceID "
            "Plus v2 from Plus by plusv2 in its name."
        )
        expression = (
            "An ONNX classifier from models/dynamicid/expression, such as FER+. Encode Identity asks it which "
            "expression the photograph shows, so that Edit Facial Motion can take it out. Loaded when it is first used."
        )
        return io.Schema(
            node_id="DynamicIDLoader",
            display_name="Load DynamicID",
            category="DynamicID/load",
            description="Loads DynamicID's or IP-Adapter FaceID's weights. Connect it to Apply DynamicID.",
            search_aliases=PEOPLE_ALIASES,
            inputs=[
                io.Combo.Input(
                    "saa",
                    options=files,
                    tooltip="The adapter from models/dynamicid: the release's SAA.bin, or one safetensors file "
                    "made by `python -m dynamicid_core.checkpoint convert`. Or IP-Adapter's FaceID, FaceID Plus or "
                    "Plus v2, for SD1.5 or SDXL, from there or from models/ipadapter.",
                ),
                choice(
                    "imr",
                    [NONE, *files],
                    "The weights that change expression and pose, if they lie in a file of their own. None: taken "
                    "from the adapter's file if that holds them.",
                ),
                choice("clip_vision", [NONE, *visions], vision),
                choice("face_pack", [NONE, *folders.face_packs()], pack),
                choice("provider", [AUTO, *PROVIDERS], provider),
                choice("kind", [AUTO, *ENCODINGS], kind),
                choice("expression_model", [NONE, *folders.expression_models()], expression),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[DynamicIDSocket.Output(display_name="dynamicid", tooltip="The weights, for the other nodes.")],
        )

    @classmethod
    def fingerprint_inputs(
        cls,
        saa: str,
        imr: str = NONE,
        clip_vision: str = NONE,
        face_pack: str = NONE,
        expression_model: str = NONE,
        **_: Any,
    ) -> Versions:
        """Return what changes when a file is replaced under the same name."""
        paths = [folders.adapter_path(name) for name in (saa, imr) if name != NONE]
        if clip_vision != NONE:
            paths.append(folders.vision_path(clip_vision))
        if face_pack != NONE:
            paths += sorted(folders.face_pack_path(face_pack).glob("*.onnx"))
        if expression_model != NONE:
            model = folders.expression_path(expression_model)
            paths += [path for path in (model, model.with_suffix(".json")) if path.is_file()]
        return _versions(paths)

    @classmethod
    def execute(
        cls,
        saa: str,
        imr: str = NONE,
        clip_vision: str = NONE,
        face_pack: str = NONE,
        provider: str = AUTO,
        kind: str = AUTO,
        expression_model: str = NONE,
    ) -> io.NodeOutput:
        vision = _path(clip_vision, folders.vision_path)
        pack = _path(face_pack, folders.face_pack_path)
        expression = _path(expression_model, folders.expression_path)
        chosen = None if kind == AUTO else kind
        dynamicid = load_dynamicid(
            folders.adapter_path(saa),
            _path(imr, folders.adapter_path),
            partial(load_vision, vision) if vision else None,
            partial(load_analyzer, pack, provider) if pack else None,
            chosen,
            partial(ExpressionClassifier, expression, provider) if expression else None,
        )
        tell(cls, loaded_report(dynamicid, vision, pack, provider, chosen, expression))
        return io.NodeOutput(dynamicid)


class LoadDynamicIDMini(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        adapter = "The DynamicID that comes with the miniature, or one in models/dynamicid that you trained for it."
        base = (
            "The network that it draws with: UNet, a small one as in SD1.5; or Flux, a small diffusion transformer, "
            "where its weights are there."
        )
        return io.Schema(
            node_id="DynamicIDMini",
            display_name="Load DynamicID Mini",
            category="DynamicID/load",
            description="Loads the miniature that comes with the pack: a small SD1.5 that draws people as flat "
            "illustrations, 128 pixels high. It needs no other file, and its DynamicID is trained for it.",
            search_aliases=PEOPLE_ALIASES,
            inputs=[
                choice("adapter", [SHIPPED, *folders.adapter_files()], adapter),
                choice("base", bases(), base),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The miniature's base model, for Apply DynamicID."),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder."),
                io.Vae.Output(display_name="vae", tooltip="Its autoencoder, for VAE Decode."),
                DynamicIDSocket.Output(display_name="dynamicid", tooltip="Its DynamicID, for the other nodes."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str = SHIPPED, base: str = DEFAULT_BASE) -> Versions:
        """Return what changes when a file is replaced under the same name, or one that was missing comes."""
        paths = [path for name in BASES[base] if (path := WEIGHTS / f"{name}.safetensors").exists()]
        return _versions(paths if adapter == SHIPPED else [*paths, folders.adapter_path(adapter)])

    @classmethod
    def execute(cls, adapter: str = SHIPPED, base: str = DEFAULT_BASE) -> io.NodeOutput:
        path = None if adapter == SHIPPED else folders.adapter_path(adapter)
        miniature = load_miniature(adapter=path, base=base)
        return io.NodeOutput(miniature.model, miniature.clip, miniature.vae, miniature.dynamicid)


def _path(name: str, path_of: Callable[[str], Path]) -> Path | None:
    return None if name == NONE else path_of(name)


def _versions(paths: Iterable[Path]) -> Versions:
    return [(path.name, stat.st_mtime_ns, stat.st_size) for path in paths for stat in [path.stat()]]
