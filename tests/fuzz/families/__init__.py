"""The fuzzer's families. One more: a module here with a `Family`, and its name below."""

from ..judge import Family
from .identities import IDENTITIES
from .names import NAMES
from .values import BOXES, IMAGES, MASKS, NUMBERS
from .weights import WEIGHTS

FAMILIES: list[Family] = [WEIGHTS, IDENTITIES, NAMES, IMAGES, MASKS, BOXES, NUMBERS]
