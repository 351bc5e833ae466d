"""The paper's experiments on drawn people, as `python -m dynamicid_core.evaluation` reads them.

References are drawn people whom training never showed. Prompts name clothes and place and leave faces to DynamicID.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from ..world.caption import (
    CLOTHES_COLORS,
    GARMENTS,
    PLACES,
    YAWS,
    CaptionSpec,
    PersonSpec,
    parse_caption,
    to_caption,
    view_of,
)
from ..world.composition import compose
from ..world.head import EXPRESSIONS
from ..world.person import NUMBERS, Person, draw_person
from ..world.render import render
from ..world.world import HELD_OUT_PAIRS, PAIRS, World, training_pairs
from .motion_experiments import MOTIONS, SOURCES, RequestedMotion, name_of_source, rows_of_source
from .redraw_experiments import put_into_pictures, redrawn

PEOPLE = 100  # who are requested
FEW = 60  # images of a row that settles a choice, or looks at one setting of many
GALLERY = 100  # people among whom one is identified
STEPS, FEW_STEPS = 10, 5  # DDIM's: ten gave what twenty of Euler's did
GUIDANCE = 4.0  # people are more alike than at 7; the release's is 5
LORA: dict[int, dict[str, float]] = {
    1: {"lora_strength": 1.0, "lora_middle": 1.0},
    2: {"lora_strength": 1.0, "lora_middle": 0.0},
    3: {"lora_strength": 0.75, "lora_middle": 0.0},
}
"""By the number of people, as Apply DynamicID has it for the miniature: whole, groups miscount."""
PEOPLE_OF = {1: "one person", 2: "two people", 3: "three people"}
OTHER_GUIDANCE = (5.0, 7.0)
STRENGTHS = (0.5, 0.75, 1.25, 1.5)
JUDGE = "mini.train.judging:judge"
FACE_PACK = Path(__file__).resolve().parents[1] / "weights" / "face-pack"  # what the miniature's nodes ask
UNGATED, GATED = "mini_ungated.safetensors", "mini_gated.safetensors"  # alike in all but the gate
CONTRASTIVE, UNGATED_IMR = "mini_contrastive.safetensors", "mini_ungated_imr.safetensors"
PLAIN_UNGATED, PLAIN_GATED = (
    "mini_plain_ungated.safetensors",
    "mini_plain_gated.safetensors",
)  # by the method's own loss
"""In the server's models/dynamicid: what the recipes of these names trained."""
# Nobody: the middle of every proportion, and nothing before the face.
CANONICAL = replace(
    draw_person(0), face="oval", brows="straight", nose="straight", mouth="full", hair="short", beard="none",
    glasses="none", marks="none", **dict.fromkeys(NUMBERS, 0.0),  # type: ignore[arg-type]  # names of numbers
)  # fmt: skip

Json = dict[str, Any]
Pair = tuple[str, float]
"""An expression and a yaw."""


@dataclass
class Experiments:
    """The benchmarks, and the reference images that they need.

    Attributes:
        folder: where references and graphs go.
        pictures: images of a row, at least; FEW at most where one setting of many is looked at.
        trained: those of the files that are named above that there are; rows that need others are left out.
        only: the benchmarks' names; all of them where it is empty.
        seed: another one draws other samples: who stands where in which clothes, and from which noise.
    """

    folder: Path
    pictures: int = 100
    trained: tuple[Path, ...] = ()
    only: tuple[str, ...] = ()
    seed: int = 0
    _drawn: set[str] = field(default_factory=set)

    def config(self) -> Json:
        builders = self._benchmarks()
        if unknown := set(self.only) - set(builders):
            raise ValueError(
                f"expected benchmarks of {', '.join(map(repr, builders))}, got {', '.join(map(repr, sorted(unknown)))}."
            )
        benchmarks = [build() for name, build in builders.items() if not self.only or name in self.only]
        # Strangers: with the person who is requested, GALLERY people.
        gallery = [self._reference(PEOPLE + number, "gallery") for number in range(GALLERY - 1)]
        files = [str(path.resolve()) for path in self.trained]
        node_judge = {"kind": "face pack", "options": {"face_pack": str(FACE_PACK)}}
        judges = {"judge": {"kind": JUDGE}, "node_judge": node_judge}
        return {**judges, "files": files, "gallery": gallery, "benchmarks": benchmarks}

    def _benchmarks(self) -> dict[str, Callable[[], Json]]:
        """Return what makes each benchmark, by its name."""
        builders: dict[str, Callable[[], Json]] = {
            "one person": self._one_person,
            "two people": partial(self._several, 2),
            "three people": partial(self._several, 3),
            **{
                f"{people}, other settings": partial(self._other_settings, count) for count, people in PEOPLE_OF.items()
            },
            f"two people in {FEW_STEPS} steps": self._few_steps,
            "one person, edited": self._edited_one_person,
            "one person, edited, other settings": self._other_ways_to_edit,
            "one person, pairs never seen": partial(self._edits, "one person, pairs never seen", 1, HELD_OUT_PAIRS),
            "two people, edited": partial(self._edits, "two people, edited", 2, training_pairs()),
        }
        for source in SOURCES:
            builders[name_of_source(source)] = partial(self._edited_from, source)
        for name, draw in MOTIONS.items():
            builders[name] = partial(self._motions, name, draw)
        for name in ("two people", "three people", "two people, edited"):
            builders[f"{name}, redrawn"] = partial(self._redrawn, builders[name], 3 if name == "three people" else 2)
        builders["people put into pictures"] = lambda: put_into_pictures(
            _few(self._several(2)), graph_of(2), self.folder
        )
        if self._has(UNGATED):
            for count, people in PEOPLE_OF.items():
                builders[f"{people}, trained without gate"] = partial(self._trained_without_gate, count)
        if self._has(PLAIN_UNGATED) and self._has(PLAIN_GATED):
            builders["one person, plain loss"] = partial(self._plain_loss, 1)
            builders["two people, plain loss"] = partial(self._plain_loss, 2)
        return builders

    # --- benchmarks ---------------------------------------------------------------------------------------------------

    def _one_person(self) -> Json:
        """Return one person in clothes and a place; twice the images, since one person is identified among many."""
        samples = []
        for i in range(self.pictures):
            rng = self._rng("one person", i)
            who = {"reference": self._reference(i % PEOPLE, "gallery")}
            sample = _sample(f"{i:03}", [_clothes(rng)], rng, [who], seeds=2)
            samples.append(self._with_truth("one person", sample, [i % PEOPLE]))
        variants = [_variant("DynamicID"), _variant("without the gate", "gate"), *self._plain_attention(), NOBODY]
        return self._benchmark("one person", 1, samples, variants)

    def _several(self, count: int) -> Json:
        samples = []
        for i in range(self.pictures):
            rng = self._rng(f"{count} people", i)
            numbers = rng.sample(range(PEOPLE), count)
            who = [{"reference": self._reference(number, "gallery")} for number in numbers]
            sample = _sample(f"{i:03}", [_clothes(rng) for _ in who], rng, who)
            samples.append(self._with_truth(f"{count} people", sample, numbers))
        variants = [
            _variant("DynamicID"), _variant("without the gate", "gate"), _variant("without regions", "regions"),
            _variant("without gate and regions", "gate", "regions"),
            *(self._plain_attention() if count == 2 else []), *self._plain_attention(masked=True), NOBODY,
        ]  # fmt: skip
        return self._benchmark(PEOPLE_OF[count], count, samples, variants)

    def _other_settings(self, count: int) -> Json:
        """Return the first of the same pictures, drawn with what is not the default."""
        benchmark = _few(_one_seed(self._one_person() if count == 1 else self._several(count)))
        variants = [
            _variant("DynamicID"), WITH_LAYOUT,
            *(_variant(row, apply=lora) for row, lora in _other_loras(count)),
            *(_variant(f"guidance {g:g}", sampler={"cfg": g}) for g in OTHER_GUIDANCE if count == 2),
        ]  # fmt: skip
        return {**benchmark, "name": f"{benchmark['name']}, other settings", "variants": variants}

    def _few_steps(self) -> Json:
        """Return two people in half as many steps, by how many of them are in the layout phase."""
        benchmark = _few(self._several(2))
        variants = [
            _variant(
                f"{n} of {FEW_STEPS} steps in the layout phase", apply={"layout_steps": layout_steps_of(n, FEW_STEPS)}
            )
            for n in range(4)
        ]
        changes = {"name": f"two people in {FEW_STEPS} steps", "overrides": {"sampler": {"steps": FEW_STEPS}}}
        return {**benchmark, **changes, "variants": variants}

    def _edits(self, name: str, count: int, pairs: tuple[Pair, ...], more: Sequence[Json] = ()) -> Json:
        """Return people with an expression and a pose each, whose references are neutral and in front view."""
        samples = []
        for i in range(self.pictures):
            rng = self._rng(name, i)
            samples.append(self._edited(name, f"{i:03}", [rng.choice(pairs) for _ in range(count)], rng))
        return self._benchmark(name, count, samples, [_variant("DynamicID"), _variant("without IMR", "imr"), *more])

    def _edited_one_person(self) -> Json:
        plain = [
            *self._trained_row(UNGATED_IMR, "plain attention", "gate"),
            *self._trained_row(UNGATED_IMR, "plain attention, without IMR", "gate", "imr"),
        ]
        return self._edits("one person, edited", 1, training_pairs(), plain)

    def _other_ways_to_edit(self) -> Json:
        variants = [
            _variant("DynamicID"),
            _variant("canonical keypoints", edit_0={"driving_strength": 1.0}),
            *(_variant(f"strength {strength:g}", edit_0={"strength": strength}) for strength in STRENGTHS),
            *self._trained_row(CONTRASTIVE, "with the contrastive term"),
        ]
        changes = {"name": "one person, edited, other settings", "variants": variants}
        return {**_few(self._edited_one_person()), **changes}

    def _edited_from(self, source: str) -> Json:
        """Return people whose references show an expression, with another one: who says which it was is the row."""
        name, samples = name_of_source(source), []
        for i in range(self.pictures):
            rng = self._rng(name, i)
            wanted = rng.choice([expression for expression in EXPRESSIONS if expression != source])
            samples.append(self._edited(name, f"{i:03}", [(wanted, 0.0)], rng, source))
        return _few(self._benchmark(name, 1, samples, rows_of_source(source)))

    def _motions(self, name: str, draw: Callable[[random.Random], RequestedMotion]) -> Json:
        """Return people with one angle, amount or mixture each, whose references are neutral and in front view."""
        samples = []
        for i in range(self.pictures):
            rng = self._rng(name, i)
            who = {"reference": self._reference(i % PEOPLE, "neutral")}
            sample = _sample(f"{i:03}", [_clothes(rng)], rng, [who])
            samples.append({**sample, "overrides": {"edit_0": draw(rng).overrides}})
        return _few(self._benchmark(name, 1, samples, [_variant("DynamicID")]))

    def _trained_without_gate(self, count: int) -> Json:
        """Return what is on or off, where attention was trained without the gate: how FaceID's files are."""
        benchmark = _few(self._one_person() if count == 1 else self._several(count))
        adapter, variants = {"adapter": UNGATED}, []
        for name, ablate in (("gate off", ["gate"]), ("gate on", [])):
            variants.append(_variant(name, *ablate, mini=adapter))
            if count > 1:
                variants += [
                    _variant(f"{name}, {row}", *ablate, mini=adapter, apply=lora) for row, lora in _other_loras(count)
                ]
                variants.append(_variant(f"{name}, no regions", *ablate, "regions", mini=adapter))
        return {**benchmark, "name": f"{benchmark['name']}, trained without gate", "variants": [*variants, NOBODY]}

    def _plain_loss(self, count: int) -> Json:
        """Return what the gate is worth where nothing weighs more than the method has it: no face, no timestep."""
        benchmark = _one_seed(self._one_person() if count == 1 else self._several(count))
        variants = [
            *self._trained_row(PLAIN_UNGATED, "plain attention", "gate"),
            *self._trained_row(PLAIN_GATED, "its twin with the gate"),
            NOBODY,
        ]
        return {**benchmark, "name": f"{benchmark['name']}, plain loss", "variants": variants}

    def _redrawn(self, build: Callable[[], Json], count: int) -> Json:
        return redrawn(build(), graph_of(count), self.folder)

    def _rng(self, *what: object) -> random.Random:
        """Return what draws a sample."""
        return _rng(*what, *([f"seed {self.seed}"] if self.seed else []))

    # --- parts ------------------------------------------------------------------------------------------------------

    def _edited(
        self, benchmark: str, name: str, pairs: list[Pair], rng: random.Random, source: str = "neutral"
    ) -> Json:
        """Return a sample of people with these expressions and yaws, whose references show `source`."""
        who: list[Json] = []
        overrides, numbers = {}, rng.sample(range(PEOPLE), len(pairs))
        for i, (expression, yaw) in enumerate(pairs):
            reference = self._reference(numbers[i], source)
            driver = self._driver(expression)
            who.append({"reference": reference, "expression": expression, "yaw": yaw, "pitch": 0, "driver": driver})
            overrides[f"edit_{i}"] = {"expression": expression, "yaw": yaw, "strength": 1.0}
        sample = {**_sample(name, [_clothes(rng) for _ in who], rng, who), "overrides": overrides}
        return self._with_truth(benchmark, sample, numbers, pairs)

    def _with_truth(self, benchmark: str, sample: Json, numbers: Sequence[int], pairs: Sequence[Pair] = ()) -> Json:
        """Return a sample with a true picture of it: its people, clothes and place as they are requested.

        Args:
            numbers: of the people.
            pairs: their requested motions; without them each has any but the reference's, since none is requested.
                Such a picture tells likeness from copying; it is no more right than another.
        """
        rng = self._rng("ground truth", benchmark, sample["name"])
        pairs = pairs or [_other_pair(number, rng) for number in numbers]
        spec = parse_caption(sample["prompt"])
        people = [
            replace(person, expression=expression, view=view_of(yaw, posed=True), posed=True)
            for person, (expression, yaw) in zip(spec.people, pairs, strict=True)
        ]
        path = f"ground_truth/{benchmark.replace(',', '').replace(' ', '-')}-{sample['name']}.png"
        drawn = self._draw(path, CaptionSpec(tuple(people), spec.place), [_person(number) for number in numbers])
        return {**sample, "ground_truth": drawn}

    def _plain_attention(self, masked: bool = False) -> list[Json]:
        """Return a DynamicID that was trained without gate, as IP-Adapter is, and its twin, with regions or without."""
        regions = () if masked else ("regions",)
        how = ", masked" if masked else ""
        return [
            *self._trained_row(UNGATED, f"plain attention{how}", "gate", *regions),
            *self._trained_row(GATED, f"its twin with the gate{how}", *regions),
        ]

    def _trained_row(self, file: str, name: str, *ablate: str) -> list[Json]:
        return [_variant(name, *ablate, mini={"adapter": file})] if self._has(file) else []

    def _has(self, file: str) -> bool:
        return file in [path.name for path in self.trained]

    def _benchmark(self, name: str, people: int, samples: list[Json], variants: list[Json]) -> Json:
        graph = self.folder / f"{people}.json"
        graph.write_text(json.dumps(graph_of(people), indent=1) + "\n", "utf-8")
        inputs = {
            "seed": ["sampler", "seed"],
            "prompt": ["positive", "text"],
            "people": [
                {"reference": [f"encode_{i}", "image"], "driver": [f"edit_{i}", "driving_image"]} for i in range(people)
            ],
        }
        return {"name": name, "template": graph.name, "inputs": inputs, "samples": samples, "variants": variants}

    def _driver(self, expression: str) -> str:
        """Draw the canonical person in an expression and front view; return the path from the folder."""
        look = PersonSpec("white", GARMENTS[0], expression, None, view_of(0.0, posed=True), posed=True)
        return self._draw(f"drivers/{expression}.png", CaptionSpec((look,), PLACES[0]), [CANONICAL], jitter=False)

    def _reference(self, number: int, kind: str) -> str:
        """Draw a held-out person, see `_reference_spec`; return the path from the folder."""
        return self._draw(_reference_name(number, kind), _reference_spec(number, kind), [_person(number)])

    def _draw(self, name: str, spec: CaptionSpec, people: Sequence[Person], jitter: bool = True) -> str:
        """Draw people unless they are drawn; return the image's path from the folder."""
        if name not in self._drawn:
            image = render(compose(spec, tuple(people), _rng("scene", name).getrandbits(32), jitter)).image
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            self._drawn.add(name)
        return name


def graph_of(people: int) -> Json:
    """Return an API graph: the miniature draws people from references, edited where a variant sets a strength."""
    width = 128 if people == 1 else 256
    apply: Json = {
        "model": ["mini", 0], "dynamicid": ["mini", 3], "weight": 1.0, "start_at": 0.0, "end_at": 1.0,
        "layout_scale": 4.0, "layout_steps": 0, "gate_threshold": 0.3, "gate": True, **LORA[people],
    }  # fmt: skip
    nodes: Json = {
        "mini": _node("DynamicIDMini", adapter="shipped"),
        "positive": _node("CLIPTextEncode", clip=["mini", 1], text=""),
        "negative": _node("CLIPTextEncode", clip=["mini", 1], text=""),
        "latent": _node("EmptyLatentImage", width=width, height=128, batch_size=1),
    }
    for i in range(people):
        encode, edit = f"encode_{i}", f"edit_{i}"
        nodes[encode] = _node(
            "DynamicIDEncode", image=None, dynamicid=["mini", 3], face="largest", index=0, crop="whole picture",
            combine="average", no_face="error",
        )  # fmt: skip
        nodes[edit] = _node(
            "DynamicIDEditMotion", identity=[encode, 0], dynamicid=["mini", 3], clip=["mini", 1], expression="neutral",
            yaw=0.0, pitch=0.0, strength=0.0, prompt="", source_expression="neutral", source_prompt="",
            driving_strength=0.0,
        )  # fmt: skip
        apply[f"people.person_{i}"] = [edit, 0]
    nodes["apply"] = _node("DynamicIDApplyAdvanced", **apply)
    nodes["sampler"] = _node(
        "KSampler", model=["apply", 0], positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0],
        seed=0, steps=STEPS, cfg=GUIDANCE, sampler_name="ddim", scheduler="ddim_uniform", denoise=1.0,
    )  # fmt: skip
    nodes["decode"] = _node("VAEDecode", samples=["sampler", 0], vae=["mini", 2])
    nodes["save"] = _node("SaveImage", images=["decode", 0], filename_prefix="experiment")
    return nodes


def _other_loras(people: int) -> list[tuple[str, dict[str, float]]]:
    return [(row, lora) for row, lora in LORA_ROWS.items() if lora != LORA[people]]


def _few(benchmark: Json) -> Json:
    return {**benchmark, "samples": benchmark["samples"][:FEW]}


def _one_seed(benchmark: Json) -> Json:
    return {**benchmark, "samples": [{**sample, "seeds": sample["seeds"][:1]} for sample in benchmark["samples"]]}


def layout_steps_of(steps: int, of: int) -> int:
    """Return layout_steps, of the release's 50, that reach so many of a run's equal steps."""
    return steps * 50 // of


# One step of ten, as near as whole steps come to the release's three of fifty.
WITH_LAYOUT: Json = {
    "name": "with the layout phase",
    "overrides": {"apply": {"layout_steps": layout_steps_of(1, STEPS)}},
}
NOBODY: Json = {"name": "without identity", "ablate": ["identity"]}
LORA_ROWS: dict[str, dict[str, float]] = {
    "whole LoRA": {"lora_strength": 1.0, "lora_middle": 1.0},
    "LoRA at half strength": {"lora_strength": 0.5, "lora_middle": 1.0},
    "whole LoRA but for the middle block": {"lora_strength": 1.0, "lora_middle": 0.0},
}
"""Ways for groups; LORA has what is drawn with."""


def write_experiments(
    folder: Path, pictures: int, trained: tuple[Path, ...], only: tuple[str, ...] = (), seed: int = 0
) -> Path:
    """Write references, graphs and FOLDER/experiments.json, which is returned.

    Raises ValueError when `only` names a benchmark that there is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "experiments.json"
    config = Experiments(folder, pictures, trained, only, seed).config()
    path.write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    return path


def _node(kind: str, **inputs: Any) -> Json:
    return {"class_type": kind, "inputs": inputs}


def _variant(name: str, *ablate: str, **overrides: Json) -> Json:
    variant: Json = {"name": name, "ablate": list(ablate)}
    return {**variant, "overrides": overrides} if overrides else variant


def _person(number: int) -> Person:
    """Return somebody whom training never showed."""
    return World(held_out_people=True).person(number)


def _reference_name(number: int, kind: str) -> str:
    return f"references/{kind}-{number:03}.png"


def _reference_spec(number: int, kind: str) -> CaptionSpec:
    """Return how a reference shows its person: `gallery` in any motion, an expression's name so and in front view."""
    rng = _rng(_reference_name(number, kind), number)
    look = _clothes(rng)
    motion = (kind, 0.0) if kind in EXPRESSIONS else (rng.choice(list(EXPRESSIONS)), rng.choice(YAWS))
    look = PersonSpec(look.colour, look.garment, motion[0], None, view_of(motion[1], posed=True), posed=True)
    return CaptionSpec((look,), rng.choice(PLACES))


def _other_pair(number: int, rng: random.Random) -> Pair:
    """Return any motion but that of a person's reference in the gallery."""
    (own,) = _reference_spec(number, "gallery").people
    return rng.choice([pair for pair in PAIRS if (pair[0], view_of(pair[1], posed=True)) != (own.expression, own.view)])


def _rng(*what: object) -> random.Random:
    return random.Random(" ".join(map(str, ("experiments", *what))))


def _clothes(rng: random.Random) -> PersonSpec:
    """Return random clothes, and nothing of a face."""
    return PersonSpec(rng.choice(CLOTHES_COLORS), rng.choice(GARMENTS))


def _sample(name: str, looks: list[PersonSpec], rng: random.Random, people: list[Json], seeds: int = 1) -> Json:
    prompt = to_caption(CaptionSpec(tuple(looks), rng.choice(PLACES)))
    return {"name": name, "prompt": prompt, "seeds": [rng.getrandbits(31) for _ in range(seeds)], "people": people}
