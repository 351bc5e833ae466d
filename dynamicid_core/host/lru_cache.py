"""Results that are kept in the process's memory while the models that they came from live."""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, cast

Value = TypeVar("Value")


class LRUCache:
    """The `size` results that were asked for last, by key and models; with another model a key's result is another."""

    def __init__(self, size: int):
        self.size = size
        self._entries: OrderedDict[Hashable, tuple[list[weakref.ref[Any]], Any]] = OrderedDict()

    def get(self, key: Hashable, models: Sequence[Any], make: Callable[[], Value]) -> Value:
        """Return the result for `key`, made when it is not there; nothing is kept of a `make` that raises."""
        entry = self._entries.get(key)
        if entry is None or [ref() for ref in entry[0]] != list(models):
            entry = self._entries[key] = [weakref.ref(model) for model in models], make()
        self._entries.move_to_end(key)
        while len(self._entries) > self.size:
            self._entries.popitem(last=False)
        return cast(Value, entry[1])
