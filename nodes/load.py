"""Load DynamicID, and Load DynamicID Mini."""

from comfy_api.latest import io

from ..dynamicid_core.host import folders
from ..dynamicid_core.host.miniature import load_miniature
from ..dynamicid_core.host.models import load_dynamicid
from .sockets import PEOPLE_ALIASES, DynamicIDSocket


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
            ],
            outputs=[DynamicIDSocket.Output(display_name="dynamicid")],
        )

    @classmethod
    def fingerprint_inputs(cls, saa: str, imr: str = folders.NONE) -> list[tuple[str, int, int]]:
        """A file replaced under the same name is loaded again."""
        stats = [(path.name, path.stat()) for path in map(folders.adapter_path, _chosen(saa, imr))]
        return [(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats]

    @classmethod
    def execute(cls, saa: str, imr: str = folders.NONE) -> io.NodeOutput:
        return io.NodeOutput(load_dynamicid(*map(folders.adapter_path, _chosen(saa, imr))))


class LoadDynamicIDMini(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDMini",
            display_name="Load DynamicID Mini",
            category="DynamicID/load",
            description="Loads the miniature that comes with the pack: a small SD1.5 that draws people as flat "
            "illustrations, 128 pixels high. It needs no other file. Its DynamicID is not trained yet.",
            search_aliases=PEOPLE_ALIASES,
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
                DynamicIDSocket.Output(display_name="dynamicid"),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        miniature = load_miniature()
        return io.NodeOutput(miniature.model, miniature.clip, miniature.vae, miniature.dynamicid)


def _chosen(saa: str, imr: str) -> list[str]:
    return [saa] if imr == folders.NONE else [saa, imr]
