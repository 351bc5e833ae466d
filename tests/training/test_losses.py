"""How much times weigh: all alike unless told, dark ones more and clear ones less where asked."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dynamicid_pack.dynamicid_core.configuration import read_config
from dynamicid_pack.dynamicid_core.training.anchoring import Anchoring
from dynamicid_pack.dynamicid_core.training.base_model import load_base_model
from dynamicid_pack.dynamicid_core.training.config import AnchoringConfig
from dynamicid_pack.dynamicid_core.training.losses import timestep_weights
from dynamicid_pack.dynamicid_core.training.shards import Shards


def test_all_times_weigh_alike_as_the_method_has_it() -> None:
    assert torch.equal(timestep_weights(torch.tensor([0.005, 0.5, 0.999])), torch.ones(3))


def test_dark_times_weigh_as_the_velocitys_error_would() -> None:
    signal = torch.tensor([0.5, 0.25, 0.01])
    assert timestep_weights(signal, max_loss_weight=10.0).tolist() == [2.0, 4.0, 10.0]


def test_clear_times_weigh_by_what_noise_they_have() -> None:
    signal = torch.tensor([0.5, 5 / 6, 20 / 21])  # signal to noise 1, 5, 20
    assert timestep_weights(signal, min_snr_gamma=5.0).tolist() == pytest.approx([1.0, 1.0, 0.25])


def test_a_batch_weighs_its_times_as_the_recipe_says(recipe: Callable[..., Path]) -> None:
    asked = read_config(recipe(max_loss_weight=10.0, min_snr_gamma=5.0), AnchoringConfig)
    stage = Anchoring(asked, load_base_model(asked.base), Shards(asked.data))
    batch = stage.batch(0, range(4))
    signal = stage._base.scheduler.alphas_cumprod[batch.timesteps]
    assert torch.allclose(batch.weight.mean((1, 2, 3)), timestep_weights(signal, 10.0, 5.0))
    assert batch.weight.std() > 0
