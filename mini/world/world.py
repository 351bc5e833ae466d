"""Endless pictures of the world, each found by its number alone.

Any process can draw any number, in any order, and gets the same picture: workers share nothing.
"""

import random
from dataclasses import dataclass, replace

from .caption import CLOTHES_COLORS, GARMENTS, PLACES, YAWS, CaptionSpec, PersonSpec, to_caption, view_of
from .composition import Scene, compose, describe
from .head import EXPRESSIONS
from .person import Person, draw_person
from .render import Picture, render

TRAINING_PEOPLE = 10_000
_HELD_OUT_FROM = 1_000_000  # the first number of a person whom no training picture shows
PAIRS = tuple((expression, yaw) for expression in EXPRESSIONS for yaw in YAWS)
# Expressions and yaws that are each seen in training, but never together: one of the side views of each expression.
HELD_OUT_PAIRS = (
    ("happy", -40.0), ("sad", 20.0), ("anger", -20.0), ("surprise", 40.0), ("disgust", -40.0), ("fear", 20.0),
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A scene, what its caption asks for (all or a part of what it shows), and that caption."""

    scene: Scene
    spec: CaptionSpec

    @property
    def caption(self) -> str:
        return to_caption(self.spec)

    def picture(self) -> Picture:
        return render(self.scene)


@dataclass(frozen=True)
class World:
    """People, motions and places to draw from.

    Attributes:
        seed: another seed, other pictures (of the same people).
        held_out_people: show people whom training never shows, instead of those whom it does.
        pairs: the (expression, yaw) that are shown; `training_pairs()` leaves the held-out ones out.
        omit_prob: how probably a caption leaves a thing unsaid.
        omit_motion_prob: how probably it leaves an expression or a view unsaid; None: as probably as other things.
    """

    seed: int = 0
    held_out_people: bool = False
    pairs: tuple[tuple[str, float], ...] = PAIRS
    omit_prob: float = 0.12
    omit_motion_prob: float | None = None

    def person(self, number: int) -> Person:
        """Return the `number`th person of this world's share of mankind."""
        return draw_person(_HELD_OUT_FROM + number if self.held_out_people else number % TRAINING_PEOPLE)

    def sample(self, index: int, count: int = 1) -> Sample:
        """Picture `index` of those that show `count` (1 to 3) different people."""
        rng = random.Random(f"world {self.seed} {self.held_out_people} {count} {index}")
        people = [self.person(number) for number in rng.sample(range(TRAINING_PEOPLE), count)]
        specs = [self._person_spec(rng) for _ in people]
        scene = compose(CaptionSpec(tuple(specs), rng.choice(PLACES)), tuple(people), rng.getrandbits(32))
        return Sample(scene, self._shortened(describe(scene, posed=rng.random() < 0.5), rng))

    def portraits_of(self, number: int) -> list[Sample]:
        """Return one person in every motion of `pairs`, clothes and place the same: for learning or judging editing."""
        rng = random.Random(f"set {self.seed} {self.held_out_people} {number}")
        spec, place, seed = self._person_spec(rng), rng.choice(PLACES), rng.getrandbits(32)
        samples = []
        for i, (expression, yaw) in enumerate(self.pairs):
            posed = replace(spec, expression=expression, view=view_of(yaw, posed=True), tilt=None, posed=True)
            scene = compose(CaptionSpec((posed,), place), (self.person(number),), seed + i)
            # The same details of the place behind each, though another seed moved the head.
            scene = replace(scene, seed=seed)
            samples.append(Sample(scene, describe(scene, posed=True)))
        return samples

    def _person_spec(self, rng: random.Random) -> PersonSpec:
        expression, yaw = rng.choice(self.pairs)
        tilt = rng.choice(("facing up", "facing down")) if rng.random() < 0.25 else None
        view = view_of(yaw, posed=True)
        return PersonSpec(rng.choice(CLOTHES_COLORS), rng.choice(GARMENTS), expression, tilt, view, posed=True)

    def _shortened(self, spec: CaptionSpec, rng: random.Random) -> CaptionSpec:
        """Return `spec` with some of it left unsaid."""

        def omits(prob: float = self.omit_prob) -> bool:
            return rng.random() < prob

        motion_prob = self.omit_prob if self.omit_motion_prob is None else self.omit_motion_prob
        people = []
        for person in spec.people:
            if omits():
                person = replace(person, colour=None, garment=None)
            if omits(motion_prob):
                person = replace(person, expression=None)
            if omits(motion_prob):
                person = replace(person, view=None, tilt=None)
            people.append(replace(person, posed=person.posed and bool(person.expression or person.view)))
        return CaptionSpec(tuple(people), None if omits() else spec.place)


@dataclass(frozen=True)
class Gallery(World):
    """A world whose portraits show each person `views` times in a row, in other motions, clothes and places."""

    views: int = 4

    def sample(self, index: int, count: int = 1) -> Sample:
        if count != 1:
            raise ValueError(f"expected portraits, got {count} people")
        base = super().sample(index)
        figure = replace(base.scene.figures[0], person=self.person(index // self.views))
        return Sample(replace(base.scene, figures=(figure,)), base.spec)


def training_pairs() -> tuple[tuple[str, float], ...]:
    return tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)
