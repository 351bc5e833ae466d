"""The pack's own small networks under the host's memory management."""

from typing import Any, Generic, TypeVar

import comfy.model_management as memory
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Managed(Generic[Network]):
    """A network that the host brings to its device when it is used, and takes away when it needs the room.

    It runs in float32: once per person, so that half precision would win nothing worth its errors.
    """

    def __init__(self, network: Network):
        self.network = network.float().eval().requires_grad_(False)
        device, parked = memory.text_encoder_device(), memory.text_encoder_offload_device()
        self._patcher = ModelPatcher(self.network, load_device=device, offload_device=parked)

    def __call__(self, *inputs: Any) -> Tensor:
        """Return the result on the CPU; tensors, also those in tuples, are brought to the network's device."""
        memory.load_models_gpu([self._patcher], force_full_load=True)
        device = self._patcher.load_device

        def placed(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, torch.float32)
            return tuple(map(placed, value)) if isinstance(value, tuple) else value

        result: Tensor = self.network(*map(placed, inputs))
        return result.cpu()
