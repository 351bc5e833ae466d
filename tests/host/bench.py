"""One graph for each node of the pack that takes images, masks, boxes or numbers, run by the host's executor."""

from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.identity.faces import Face
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.nodes.apply import Apply

from . import probe, tiny
from .executor import Executor, Ran
from .graphs import Graph, Node

NODES = (
    "DynamicIDEncode", "DynamicIDEditMotion", "DynamicIDPlace", "DynamicIDLayout", "DynamicIDApply",
    "DynamicIDApplyAdvanced", "DynamicIDWhoIsWho", "DynamicIDActivationMap", "DynamicIDMix",
    "DynamicIDAnimate", "DynamicIDRedraw",
)  # fmt: skip
PICTURE = torch.from_numpy(World(seed=9, held_out_people=True).sample(5, 2).picture().image).float().div(255)[None]
FACES = {"layout": "faces in a picture", "layout.order": "left to right", "layout.reach": 0.5}
_SECOND_OUTPUT = (
    "DynamicIDEncode", "DynamicIDEditMotion", "DynamicIDActivationMap", "DynamicIDLayout", "DynamicIDAnimate",
)  # fmt: skip


def person(seed: int = 1) -> Identity:
    """An identity of the miniature's dims, of random tokens."""
    drawn = tiny.identity_tensors(seed)
    embedding = torch.nn.functional.normalize(torch.ones(512), dim=0)
    return Identity(drawn["tokens"], drawn["negative_tokens"], face=Face(embedding=embedding))


def assert_refused(ran: Ran, node: str, name: str, says: str, host_may: bool = False) -> None:
    """One line of ours names the input and what came.

    Args:
        host_may: the host may refuse the graph before, in its own words.
    """
    assert ran.message, "it was taken"
    assert ran.node == node
    if host_may and ran.kind == "validation":
        return
    assert ran.kind == "ValueError", ran
    assert ran.message.isprintable() and len(ran.message) < 700
    assert name in ran.message and says in ran.message, ran.message


class Bench:
    """Runs a node in a graph of its own, with right values but for those that a test changes."""

    def __init__(self, executor: Executor, miniature: Miniature):
        self.executor, self.miniature = executor, miniature
        (self.patched,) = Apply.execute(miniature.model, miniature.dynamicid, {"person_0": person()}, 1.0).args

    def run(self, node: str, *, as_id: Any = "", workflow: Any = None, **changed: Any) -> Ran:
        """Run a node; `...` leaves an input out, and a value that a graph can't hold comes from another node.

        Args:
            as_id: the node's id in the graph.
            workflow: the page's own graph, sent along.
        """
        graph, inputs = Graph(), self.right(node) | changed
        wired = {
            name: value if isinstance(value, (str, int, float, bool)) else self.executor.value(graph, value)
            for name, value in inputs.items()
            if value is not ...
        }
        added = graph.add(node, wired)
        if as_id:
            graph[as_id] = graph.pop(added.id)
            added = Node(as_id)
        for output in range(2 if node in _SECOND_OUTPUT else 1):
            self.executor.keep(graph, added[output])
        return self.executor.run(graph, workflow)

    def right(self, node: str) -> dict[str, Any]:
        """Return a node's inputs, with right values."""
        m = self.miniature
        people = {"people.person_0": person(1), "people.person_1": person(2)}
        text = probe.conditioning(torch.zeros(1, 7, tiny.WIDTH))
        return {
            "DynamicIDEncode": {
                "image": PICTURE, "dynamicid": m.dynamicid, "face": "largest", "index": 0, "crop": "whole picture",
                "combine": "average", "no_face": "error",
            },
            "DynamicIDEditMotion": {
                "identity": person(), "dynamicid": m.dynamicid, "clip": m.clip, "expression": "happy", "yaw": 0.0,
                "pitch": 0.0, "strength": 1.0, "prompt": "", "source_expression": "neutral", "source_prompt": "",
                "driving_strength": 1.0,
            },
            "DynamicIDAnimate": {
                "identity": person(), "dynamicid": m.dynamicid, "clip": m.clip,
                "keyframes": "0: neutral\n8: happy, yaw 20\n15: surprise", "frames": 16, "easing": "linear",
                "strength": 1.0, "source_expression": "neutral", "driving_strength": 1.0,
            },
            "DynamicIDPlace": {
                "identity": person(), "x": 0.0, "y": 0.0, "width": 0.5, "height": 1.0, "weight": 1.0,
                "start_at": 0.0, "end_at": 1.0,
            },
            "DynamicIDLayout": people | {"layout": "columns", "margin": 0.0},
            "DynamicIDApplyAdvanced": people | {
                "model": m.model, "dynamicid": m.dynamicid, "weight": 1.0, "start_at": 0.0, "end_at": 1.0,
                "lora_strength": 1.0, "layout_scale": 4.0, "layout_steps": 3, "gate_threshold": 0.3, "gate": True,
                "lora_middle": 1.0,
            },
            "DynamicIDApply": people | {"model": m.model, "dynamicid": m.dynamicid, "weight": 1.0},
            "DynamicIDMix": {"identity_a": person(1), "identity_b": person(2), "mix": 0.5},
            "DynamicIDWhoIsWho": people | {"image": PICTURE, "dynamicid": m.dynamicid},
            "DynamicIDRedraw": people | {
                "image": PICTURE, "model": m.model, "dynamicid": m.dynamicid, "positive": text, "negative": text,
                "vae": m.vae, "seed": 1, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal",
                "denoise": 0.0, "size": 0, "margin": 0.75, "feather": 0.1, "only_below": 1.0, "passes": 1,
            },
            "DynamicIDActivationMap": {
                "model": self.patched, "positive": text, "latent": {"samples": torch.zeros(1, 4, 16, 16)},
                "at": 0.5, "layer": "average",
            },
        }[node]  # fmt: skip


@pytest.fixture(scope="module", name="bench")
def bench_of_a_module(executor: Executor) -> Bench:
    return Bench(executor, load_miniature())
