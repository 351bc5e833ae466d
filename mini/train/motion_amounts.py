"""How much of an expression a drawn face shows: read by the judge, on a scale of rendered faces of known amounts."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..world.caption import PLACES, CaptionSpec, PersonSpec
from ..world.composition import compose
from ..world.head import EXPRESSIONS
from ..world.render import render
from ..world.world import World
from .motion_experiments import SHOWN

GRID = np.linspace(0.0, 1.0, 11)
PEOPLE = 16  # who make the scale, and as many others who check it
_FIRST = 5000  # a held-out person whom no experiment shows

Curves = dict[str, NDArray[np.float64]]
"""expression -> the mean margin at each amount of GRID"""


class ExpressionJudge(Protocol):
    def expression_log_probs(self, image: NDArray[np.uint8]) -> dict[str, float]:
        """Return the log-probability of each expression on the largest face; empty without a face."""


class AmountScale:
    """Turns a judge's certainty into an amount: that at which rendered faces look the same to it.

    The margin is log p(expression) - log p(neutral). The scale is its mean over PEOPLE, rendered in front view at each
    amount of GRID, made monotone; between its points the amount is interpolated.
    """

    def __init__(self, judge: ExpressionJudge):
        self._judge = judge
        self._curves: Curves = {}
        for name in SHOWN:
            margins = [[self._margin(image, name) for image in _rendered(who, name)] for who in range(PEOPLE)]
            self._curves[name] = np.maximum.accumulate(np.nanmean(np.array(margins, np.float64), axis=0))

    def amount(self, image: NDArray[np.uint8], expression: str) -> float:
        """Return the amount, 0 to 1, of an expression of the largest face in an image (H, W, 3); NaN without a face."""
        margin = self._margin(image, expression)
        return margin if np.isnan(margin) else float(np.interp(margin, self._curves[expression], GRID))

    def of_rendered(self) -> Iterator[tuple[float, float]]:
        """Yield the true and the read amount of rendered faces of other people: what no drawn face can beat."""
        for name in SHOWN:
            for who in range(PEOPLE, 2 * PEOPLE):
                for true, image in zip(GRID, _rendered(who, name), strict=True):
                    yield float(true), self.amount(image, name)

    def _margin(self, image: NDArray[np.uint8], expression: str) -> float:
        log_probs = self._judge.expression_log_probs(image)
        return log_probs[expression] - log_probs["neutral"] if log_probs else np.nan


def _rendered(who: int, expression: str) -> Iterator[NDArray[np.uint8]]:
    """Yield one held-out person in front view, in each amount of GRID of an expression."""
    assert expression in EXPRESSIONS
    place = random.Random(f"amounts {who}").choice(PLACES)
    spec = CaptionSpec((PersonSpec(expression=expression, view="in front view"),), place)
    scene = compose(spec, (World(held_out_people=True).person(_FIRST + who),), who, jitter=False)
    (figure,) = scene.figures
    for amount in GRID:
        motion = replace(figure.motion, strength=float(amount))
        yield render(replace(scene, figures=(replace(figure, motion=motion),))).image
