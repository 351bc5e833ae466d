"""The fuzzer's families. One more: a module here with a `Family`, and its name below."""

from ..judge import Family

FAMILIES: list[Family] = []
