"""Many prompts one after the other, right and wrong ones mixed: nothing of the pack piles up in the process."""

import gc
import json
import os
import random
import re
import sys
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
import torch
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.tests.support import ROOT

import nodes

from .bench import person
from .executor import Executor
from .graphs import Graph, Link

PEOPLE, PHOTOGRAPHS = 6, 2
FAILS = ("unknown layout", "no face", "weight out of range")

Made = dict[str, Link]


class Mix:
    """Draws prompts by a seed: one or several people, placed, encoded or edited; wrong ones; interrupted ones.

    Attributes:
        ours: whether the pack's nodes take part; the host's own sample in any case.
        largest: characters of what the host's history keeps of a prompt's messages, the most so far.
    """

    largest = 0

    def __init__(self, executor: Executor, miniature: Miniature, ours: bool = True, seed: int = 0):
        self._executor, self._ours, self._seed = executor, ours, seed
        world = World(seed=9, held_out_people=True)
        drawn = [world.sample(number, 1).picture().image for number in range(PHOTOGRAPHS)]
        values = [
            *(miniature.model, miniature.clip, miniature.vae, miniature.dynamicid),
            *(person(number) for number in range(PEOPLE)),
            *(torch.from_numpy(image).float().div(255)[None] for image in drawn),
        ]
        registered = Graph()
        self._values = [registered[executor.value(registered, value)[0]]["inputs"]["number"] for value in values]

    def run(self, number: int) -> str:
        """Run a prompt. Return what a user reads of it: "" where it went well."""
        graph, rng = Graph(), random.Random(f"{self._seed} {number}")
        model, clip, vae, dynamicid = (self._value(graph, number) for number in range(4))
        fails = rng.choice(FAILS) if self._ours and number % 12 == 5 else ""
        if self._ours:
            people = {
                f"people.person_{n}": self._person(graph, rng, number, dynamicid, clip, fails)
                for n in range(rng.randint(1, 3))
            }
            weight = 50.0 if fails == "weight out of range" else rng.uniform(0, 1.5)
            model = graph.add("DynamicIDApply", people, model=model, dynamicid=dynamicid, weight=weight)[0]
        text = graph.add("CLIPTextEncode", text=f"people {rng.random()}", clip=clip)[0]
        latent = graph.add("EmptyLatentImage", width=64, height=64, batch_size=rng.randint(1, 2))[0]
        sampled = graph.add(
            "KSampler", model=model, positive=text, negative=text, latent_image=latent, seed=rng.randrange(2**32),
            steps=rng.choice([1, 2]), cfg=rng.choice([1.0, 5.0]), sampler_name="euler", scheduler="normal",
            denoise=1.0,
        )[0]  # fmt: skip
        image = graph.add("VAEDecode", samples=sampled, vae=vae)[0]
        if self._ours and rng.random() < 0.1:
            image = graph.add(
                "DynamicIDActivationMap", model=model, positive=text, latent=latent, at=0.5, layer="average"
            )[0]
        self._executor.keep(graph, image)
        interrupted = threading.Timer(0.02, nodes.interrupt_processing)
        if number % 25 == 7:
            interrupted.start()
        try:
            return self._executor.run(graph).message
        finally:
            interrupted.cancel()
            self.largest = max(self.largest, len(json.dumps(self._executor.messages, default=str)))

    def _value(self, graph: Graph, number: int) -> Link:
        return graph.add("TestsValue", number=self._values[number])[0]

    def _person(self, graph: Graph, rng: random.Random, number: int, dynamicid: Link, clip: Link, fails: str) -> Link:
        made = self._value(graph, 4 + rng.randrange(PEOPLE))
        first = number < PHOTOGRAPHS  # what is loaded or remembered once, is so before the first measure
        if rng.random() < 0.1 or fails == "no face" or first:
            photograph = self._value(graph, 4 + PEOPLE + number % PHOTOGRAPHS)
            index = 5 if fails == "no face" else 0
            made = graph.add(
                "DynamicIDEncode", image=photograph, dynamicid=dynamicid, face="largest", index=index,
                crop="face", combine="average", no_face="error",
            )[0]  # fmt: skip
        if rng.random() < 0.1 or first:
            made = graph.add(
                "DynamicIDEditMotion", identity=made, dynamicid=dynamicid, clip=clip, expression="happy",
                yaw=rng.uniform(-20, 20), pitch=0.0, strength=1.0, prompt="", source_expression="neutral",
                source_prompt="", driving_strength=1.0,
            )[0]  # fmt: skip
        if rng.random() < 0.3 or fails == "unknown layout":
            x = "left" if fails == "unknown layout" else rng.uniform(0, 0.5)
            made = graph.add(
                "DynamicIDPlace", identity=made, x=x, y=0.0, width=0.5, height=1.0, weight=1.0, start_at=0.0, end_at=1.0
            )[0]
        return made


def measure() -> dict[str, int]:
    """Return what the process holds.

    Returns:
        objects: how many of the pack's own classes. tensors: bytes of all tensors, each storage once.
        allocations: bytes that Python allocated in the pack's own files; 0 where that isn't traced.
        resident: bytes of memory; 0 where the system doesn't tell it so.
    """
    gc.collect()
    things = gc.get_objects()
    kinds = Counter(map(type, things))
    ours = [kind for kind in kinds if re.match(r"dynamicid_pack\.(?!tests)", str(kind.__module__))]
    # Of other tests there may be sparse ones, or such as hold no numbers, left alive in this process.
    tensors = [thing for thing in things if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    real = [tensor for tensor in tensors if tensor.layout is torch.strided and tensor.device.type != "meta"]
    storages = [tensor.untyped_storage() for tensor in real]
    allocated = 0
    if tracemalloc.is_tracing():
        files = [tracemalloc.Filter(True, str(ROOT / room / "*")) for room in ("nodes", "dynamicid_core")]
        allocated = sum(entry.size for entry in tracemalloc.take_snapshot().filter_traces(files).statistics("filename"))
    statm = Path("/proc/self/statm")
    return {
        "objects": sum(kinds[kind] for kind in ours),
        "tensors": sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()),
        "allocations": allocated,
        "resident": int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0,
    }


def grow(mix: Mix, warm: int, prompts: int) -> tuple[dict[str, int], dict[str, int], int]:
    """Run prompts. Return what is measured after the first `warm`, and after all, and how many prompts were refused.

    The host keeps what the last prompt's nodes gave, so before each measure it is the same one, the very first.
    """
    messages: list[str] = []

    def measured(numbers: range) -> dict[str, int]:
        messages.extend(mix.run(number) for number in (*numbers, 0))
        return measure()

    return measured(range(warm)), measured(range(warm, prompts)), sum(map(bool, messages))


def check(executor: Executor, warm: int, prompts: int, names: tuple[str, ...]) -> None:
    mix = Mix(executor, load_miniature())
    before, after, refused = grow(mix, warm, prompts)
    print(f"{refused} refused; after {warm} prompts {before}, after {prompts} {after}", file=sys.stderr)
    assert 0.05 * prompts < refused < 0.15 * prompts
    for name in names:
        assert after[name] <= before[name] * 1.01, name
    assert mix.largest < 20_000, "the history keeps it for up to 10,000 prompts"


def test_nothing_of_ours_piles_up(executor: Executor) -> None:
    check(executor, 6, 18, ("objects", "tensors"))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_nothing_of_ours_piles_up_in_a_thousand_prompts(executor: Executor) -> None:
    tracemalloc.start(1)
    try:
        check(executor, 200, 1000, ("objects", "tensors", "allocations"))
    finally:
        tracemalloc.stop()
