"""Graphs in the API's format, built the way a user wires them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Models:
    """Names of the model files that a server lists.

    Attributes:
        checkpoint: the base model's file; None where Load DynamicID Mini takes its place.
        width: of identities' tokens.
    """

    name: str
    width: int
    checkpoint: str | None

    @property
    def adapter(self) -> str:
        """The adapter without IMR."""
        return f"{self.name}_dynamicid.safetensors"

    @property
    def imr(self) -> str:
        return f"{self.name}_IMR.safetensors"

    @property
    def lora(self) -> str:
        return f"{self.name}_lora.safetensors"


MINIATURE = Models("miniature", 128, None)
FULL_SIZE = Models("generated", 768, "generated_sd15.safetensors")
SDXL = Models("generated_sdxl", 2048, "generated_sdxl.safetensors")
CONTROLNET, VISION = "generated_controlnet.safetensors", "generated_vit_h.safetensors"
EXPRESSION_MODEL = "generated_expression.onnx"
"""What only the full size has: ComfyUI's loaders know no smaller ones."""

Link = list[Any]
"""[node id, output index]"""


@dataclass(frozen=True)
class Node:
    """A node of a graph; `node[0]` is its first output, to be given as another's input."""

    id: str

    def __getitem__(self, output: int) -> Link:
        return [self.id, output]


class Graph(dict[str, Any]):
    """node id -> class and inputs, ready for POST /prompt; ids count from "1"."""

    def add(self, node_class: str, inputs: dict[str, Any] | None = None, **more: Any) -> Node:
        """Add a node; `inputs` takes names with dots (`people.person_0`)."""
        node = Node(str(len(self) + 1))
        self[node.id] = {"class_type": node_class, "inputs": {**(inputs or {}), **more}}
        return node

    def ids(self, node_class: str) -> list[str]:
        """Ids of all nodes of a class."""
        return [node for node, content in self.items() if content["class_type"] == node_class]


@dataclass(frozen=True)
class Settings:
    """One sampling run, by default the smallest that a UNet of four levels takes; sizes in pixels."""

    width: int = 64
    height: int = 64
    batch: int = 1
    steps: int = 2
    cfg: float = 7.0
    sampler: str = "euler"
    scheduler: str = "normal"
    seed: int = 1
    denoise: float = 1.0


class Scene(Graph):
    """A graph that has begun with a base model, two prompts and an empty latent.

    `models` are the miniature's, unless the fixture `full_size_scenes` changes them. `model` and `positive`,
    `negative`, `latent` are what the sampler will get: reassign them to put nodes in between.
    """

    models = MINIATURE

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.settings = settings or Settings()
        if self.models.checkpoint is None:
            loaded = self.add("DynamicIDMini")
        else:
            loaded = self.add("CheckpointLoaderSimple", ckpt_name=self.models.checkpoint)
        self.model, self.clip, self.vae = loaded[0], loaded[1], loaded[2]
        self.positive = self.add("CLIPTextEncode", text="two people in a garden", clip=self.clip)[0]
        self.negative = self.add("CLIPTextEncode", text="blurry", clip=self.clip)[0]
        s = self.settings
        self.latent = self.add("EmptyLatentImage", width=s.width, height=s.height, batch_size=s.batch)[0]

    def sample(self, **changed: Any) -> Node:
        """KSampler on `model` and `latent` (which becomes its result); `changed` overrides its inputs."""
        s = self.settings
        inputs = {
            "seed": s.seed,
            "steps": s.steps,
            "cfg": s.cfg,
            "sampler_name": s.sampler,
            "scheduler": s.scheduler,
            "denoise": s.denoise,
            "model": self.model,
            "positive": self.positive,
            "negative": self.negative,
            "latent_image": self.latent,
        }
        node = self.add("KSampler", inputs | changed)
        self.latent = node[0]
        return node

    def save(self) -> Node:
        """Decode `latent` and save the picture."""
        picture = self.add("VAEDecode", samples=self.latent, vae=self.vae)
        return self.add("SaveImage", images=picture[0], filename_prefix="test")

    def loader(self, saa: str = "", imr: str = "None") -> Link:
        """Load DynamicID, the adapter of this size unless another is named."""
        return self.add("DynamicIDLoader", saa=saa or self.models.adapter, imr=imr)[0]

    def identity(self, name: str) -> Link:
        """Load Identity."""
        return self.add("DynamicIDLoadIdentity", name=name)[0]

    def place(self, identity: Link, placements: Link | None = None, **changed: Any) -> Node:
        """Place Identity: the whole picture unless x, y, width, height (fractions) are given."""
        inputs: dict[str, Any] = {"identity": identity, "x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0}
        inputs |= {"weight": 1.0, "start_at": 0.0, "end_at": 1.0}
        if placements is not None:
            inputs["placements"] = placements
        return self.add("DynamicIDPlace", inputs | changed)

    def apply(self, dynamicid: Link, people: Sequence[Link], weight: float = 1.0) -> Node:
        """Apply DynamicID to `model` (which becomes the patched one)."""
        node = self.add(
            "DynamicIDApply", {"model": self.model, "dynamicid": dynamicid, "weight": weight} | several(people)
        )
        self.model = node[0]
        return node

    def apply_advanced(self, dynamicid: Link, people: Sequence[Link], **changed: Any) -> Node:
        """Apply DynamicID (Advanced) to `model` (which becomes the patched one)."""
        inputs: dict[str, Any] = {"model": self.model, "dynamicid": dynamicid, "weight": 1.0}
        inputs |= {"start_at": 0.0, "end_at": 1.0, "lora_strength": 1.0}
        inputs |= {"layout_scale": 4.0, "layout_steps": 3, "gate_threshold": 0.3, "gate": True}
        node = self.add("DynamicIDApplyAdvanced", inputs | several(people) | changed)
        self.model = node[0]
        return node

    def cast(self, names: Sequence[str], weight: float = 1.0) -> Node:
        """Load the adapter and these identities, and apply them side by side."""
        return self.apply(self.loader(), [self.identity(name) for name in names], weight)


def several(people: Sequence[Link], name: str = "people", prefix: str = "person_") -> dict[str, Link]:
    """Inputs of a growing socket, as the page sends them: `people.person_0`, `people.person_1`, …"""
    return {f"{name}.{prefix}{index}": link for index, link in enumerate(people)}


def portrait(names: Sequence[str], settings: Settings | None = None, weight: float = 1.0) -> Scene:
    """The whole graph for these people side by side; without names, the plain model's picture."""
    scene = Scene(settings)
    if names:
        scene.cast(names, weight)
    scene.sample()
    scene.save()
    return scene
