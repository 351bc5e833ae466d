"""Activation maps cost nothing while sampling and leave nothing behind, on the GPU or elsewhere."""

import gc
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.host.activation import Recorder, activation_maps
from dynamicid_pack.dynamicid_core.host.sampling_run import RECORDER

from .stage import Stage, conditioning

LATENT = {"samples": torch.zeros(1, 4, 8, 12)}


def recorders() -> list[Any]:
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is Recorder]


def test_sampling_records_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before a map was asked for, nor on the same model after it."""
    recorded: list[object] = []
    record = Recorder.record

    def noted(self: Recorder, *what: Any) -> None:
        recorded.append(what)
        record(self, *what)

    monkeypatch.setattr(Recorder, "record", noted)
    patched = stage.ours()
    before = stage.sample(patched)
    assert not recorded
    activation_maps(patched, conditioning("p"), LATENT, at=0.5)
    layers = len(recorded)
    assert layers == len(stage.keys)
    assert torch.equal(stage.sample(patched), before)
    assert len(recorded) == layers


def test_maps_leave_nothing_behind(stage: Stage) -> None:
    patched = stage.ours()
    activation_maps(patched, conditioning("p"), LATENT, at=0.5)  # what the model itself keeps is kept from now on
    gc.collect()
    kept = sum(thing.numel() for thing in gc.get_objects() if torch.is_tensor(thing))
    maps = activation_maps(patched, conditioning("p"), LATENT, at=0.5)
    assert maps.device.type == "cpu" and not maps.requires_grad
    size = maps.numel()
    del maps
    gc.collect()
    after = sum(thing.numel() for thing in gc.get_objects() if torch.is_tensor(thing))
    assert after - kept < size
    assert recorders() == []
    assert RECORDER not in patched.model_options["transformer_options"]
