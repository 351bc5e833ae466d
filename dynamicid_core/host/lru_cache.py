"""What was worked out last, kept in the process's memory while the models that it came from live."""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Value = TypeVar("Value")
Key = tuple[object, ...]


class LRUCache:
    """The last `size` results, by key and models; another model under the same key is another result."""

    def __init__(self, size: int):
        self.size = size
        self._known: OrderedDict[Key, tuple[list[weakref.ref[Any]], Any]] = OrderedDict()

    def get(self, key: Key, models: Sequence[Any], make: Callable[[], Value]) -> Value:
        """The result for `key`, made when it is not known; nothing is kept of a `make` that raises."""
        known = self._known.get(key)
        if known is None or any(ref() is not model for ref, model in zip(known[0], models, strict=True)):
            value = make()
            self._known[key] = ([weakref.ref(model) for model in models], value)
            while len(self._known) > self.size:
                self._known.popitem(last=False)
            return value
        self._known.move_to_end(key)
        return known[1]

    def clear(self) -> None:
        self._known.clear()
