"""Models that another node has compiled: people are drawn without torch.compile, whose code models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

# The host compiles a model in a wrapper of this name.
_HOSTS_WRAPPER = "torch.compile"


def without_compile(
    model_options: Mapping[str, Any], unet: torch.nn.Module, warn: Callable[[str], None]
) -> AbstractContextManager[Any] | None:
    """Return the context in which a model runs as if no node had compiled it; None where this torch has none.

    Compiled code belongs to a model's modules, which all its clones share, and the host excludes what differs between
    clones (the transformer options) from the guards that would tell them apart. A model without people that is compiled
    first would so draw for one with people as well, or the other way round.

    Args:
        model_options: of the run; the host's compiling wrapper is in them.
        unet: the model that runs; other packs compile it, or parts of it.
        warn: told what a user should know, before anything is drawn.
    """
    if not _is_compiled(model_options, unet):
        return nullcontext()
    if not hasattr(torch.compiler, "set_stance"):  # before torch 2.6
        warn(
            f"another node compiles this model, and torch {torch.__version__} then runs one model's code for all of "
            "its clones: people may be missing, or show where none belong. Bypass the node that compiles, or update "
            "torch to 2.6 or newer."
        )
        return None
    warn(
        "another node compiles this model. It runs uncompiled, right and no quicker: compiled code is shared with "
        "models that draw other people, or nobody."
    )
    eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return eager


def _is_compiled(model_options: Mapping[str, Any], unet: torch.nn.Module) -> bool:
    wrappers = model_options["transformer_options"].get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})
    return bool(wrappers.get(_HOSTS_WRAPPER)) or any(
        getattr(module, "_compiled_call_impl", None) is not None  # module.compile()
        or hasattr(module.forward, "_torchdynamo_orig_callable")  # torch.compile(module), torch.compile(module.forward)
        for module in unet.modules()
    )
