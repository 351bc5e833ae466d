"""Sizes of the miniature's networks, in the words of those who load them, and weights made ready for loading."""

from typing import Any

from torch import Tensor

CONTEXT_DIM = 128  # of the text states
VOCABULARY_SIZE = 49_408  # rows that the host's text encoder has
ROWS = "text_model.embeddings.token_embedding.weight"
ROW_IDS = "token_ids"

# As `comfy.sd1_clip.SDClipModel` takes it (`textmodel_json_config`) and `transformers.CLIPTextConfig` understands it.
TEXT: dict[str, Any] = {
    "model_type": "clip_text_model",
    "hidden_size": CONTEXT_DIM,
    "intermediate_size": 4 * CONTEXT_DIM,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "projection_dim": CONTEXT_DIM,
    "eos_token_id": 49_407,
}

# As `comfy.clip_vision.ClipVisionModel` takes it (older hosts only as a JSON file) and as
# `transformers.CLIPVisionConfig` understands it.
VISION: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "num_channels": 3,
    "hidden_act": "gelu",
    "image_size": 128,
    "patch_size": 16,
    "projection_dim": CONTEXT_DIM,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}

# As `comfy.supported_models.SD15` takes it.
UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [1, 1, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 0, 0],
    "context_dim": CONTEXT_DIM,
    "num_heads": 4,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}

# As `comfy.supported_models.FluxSchnell` takes it: Flux without distilled guidance.
FLUX: dict[str, Any] = {
    "image_model": "flux",
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": 2,
    "vec_in_dim": CONTEXT_DIM,
    "context_in_dim": CONTEXT_DIM,
    "hidden_size": 256,
    "mlp_ratio": 4.0,
    "num_heads": 4,
    "depth": 2,
    "depth_single_blocks": 5,
    "axes_dim": [8, 28, 28],
    "txt_ids_dims": [],
    "theta": 10_000,
    "qkv_bias": True,
    "guidance_embed": False,
}
FLUX_SHIFT = 2.0  # of its noise schedule, `shift * t / (1 + (shift - 1) * t)`


def with_all_rows(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a kept text encoder with a row for every token, as the host expects.

    `token_ids` (n,) names the tokens of the first n kept rows; every other token gets the last row, the unknown one.
    """
    rows, ids = state[ROWS], state[ROW_IDS].long()
    table = rows[-1].expand(VOCABULARY_SIZE, -1).clone()
    table[ids] = rows[:-1]
    return {name: tensor for name, tensor in state.items() if name != ROW_IDS} | {ROWS: table}
