"""What is remembered is what was made of the same things, and of no others."""

import gc

import pytest
from dynamicid_pack.dynamicid_core.host.lru_cache import LRUCache


class Model:
    pass


def test_it_is_made_once_for_a_key_and_a_model():
    made, cache, model, other = [], LRUCache(2), Model(), Model()

    def get(key, of):
        return cache.get((key,), [of], lambda: made.append(key) or len(made))

    assert get("a", model) == get("a", model) == 1
    assert get("a", other) == 2  # another model
    assert (get("b", other), get("c", other), get("a", other)) == (3, 4, 5)  # "a" was the oldest of three


def test_a_model_that_is_gone_is_forgotten():
    cache, model = LRUCache(2), Model()
    cache.get(("a",), [model], lambda: 1)
    del model
    gc.collect()
    assert cache.get(("a",), [Model()], lambda: 2) == 2


def test_nothing_is_kept_of_a_failure():
    cache, model = LRUCache(2), Model()
    with pytest.raises(ZeroDivisionError):
        cache.get(("a",), [model], lambda: 1 // 0)
    assert cache.get(("a",), [model], lambda: 3) == 3
