"""A base model so small that a step takes a moment, and shards of drawn people."""

import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from accelerate.state import AcceleratorState, GradientState
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from dynamicid_pack.dynamicid_core.training import denoise
from dynamicid_pack.mini.world.world import World
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

WIDTH, WIDTH_2, POOLED = 64, 32, 24  # channels of the text encoders' states, and of the second's pooled text
PEOPLE, EACH = 3, 4


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random networks of SD1.5's kinds, in diffusers' folders."""
    return _base_model(tmp_path_factory.mktemp("base"), cross_attention_dim=WIDTH)


@pytest.fixture(scope="session")
def xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of SDXL's kinds: a second text encoder, whose states stand beside the first's, and sizes."""
    sizes = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": POOLED + 6 * 8}
    folder = _base_model(
        tmp_path_factory.mktemp("xl"), cross_attention_dim=WIDTH + WIDTH_2, addition_embed_type="text_time",
        transformer_layers_per_block=(2, 1), use_linear_projection=True, **sizes,
    )  # fmt: skip
    CLIPTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(folder / "tokenizer_2")
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder", hidden_size=WIDTH_2, projection_dim=POOLED)
    CLIPTextModelWithProjection(config).save_pretrained(folder / "text_encoder_2")
    return folder


def _base_model(folder: Path, **unet: Any) -> Path:
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **unet,
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8), scaling_factor=1.0
    ).save_pretrained(folder / "vae")
    letters = "abcdefghijklmnopqrstuvwxyz,"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(
        str(folder / "tokenizer" / "vocab.json"), str(folder / "tokenizer" / "merges.txt"), model_max_length=77
    ).save_pretrained(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            eos_token_id=1, bos_token_id=0,
        )
    ).save_pretrained(folder / "text_encoder")  # fmt: skip
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=16, projection_dim=WIDTH,
        )
    ).save_pretrained(folder / "image_encoder")  # fmt: skip
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    return folder


@pytest.fixture(scope="session")
def flux_folder(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """The same with a random Flux, which reads one text encoder's states and pooled text."""
    folder = tmp_path_factory.mktemp("flux")
    for part in ("vae", "tokenizer", "text_encoder", "image_encoder"):
        (folder / part).symlink_to(base_folder / part)
    torch.manual_seed(0)
    FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 6, 6),
    ).save_pretrained(folder / "transformer")  # fmt: skip
    FlowMatchEulerDiscreteScheduler(shift=1.5).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory, flux_folder: Path) -> Path:
    """The same with T5, whose states Flux then reads."""
    folder = tmp_path_factory.mktemp("t5")
    for part in flux_folder.iterdir():
        (folder / part.name).symlink_to(part)
    T5EncoderModel(
        T5Config(vocab_size=32, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ).save_pretrained(folder / "text_encoder_2")  # fmt: skip
    words = {word: number for number, word in enumerate(["<pad>", "<unk>", *"abcdef"])}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, "<unk>")), pad_token="<pad>", unk_token="<unk>", model_max_length=12
    ).save_pretrained(folder / "tokenizer_2")
    return folder


@pytest.fixture(scope="session")
def shards_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of PEOPLE drawn people, EACH pictures of each."""
    folder = tmp_path_factory.mktemp("shards")
    world = World(seed=5)
    with webdataset.ShardWriter(str(folder / "shard-%06d.tar"), maxcount=8, verbose=0) as writer:
        for person in range(PEOPLE):
            who = _random((512,), person)
            for number, sample in enumerate(world.portraits_of(person)[: 8 * EACH : 8]):
                picture = sample.picture()
                (face,) = picture.faces
                x0, y0, x1, y1 = (float(side) / 128 for side in face.box)
                writer.write(
                    {
                        "__key__": f"{person:04}-{number:02}",
                        "png": _png(picture.image),
                        "txt": sample.caption.encode(),
                        "embedding.npy": _npy(who / np.linalg.norm(who)),
                        "landmarks.npy": _npy(np.asarray(face.landmarks, np.float32) * 4),
                        "tokens.npy": _npy(
                            np.random.default_rng([person, number]).normal(size=(2, WIDTH)).astype("f4")
                        ),
                        "json": json.dumps({"person": f"person {person}", "face": [x0, y0, x1, y1]}).encode(),
                    }
                )
    return folder


def _random(shape: tuple[int, ...], *seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _png(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


def _npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


@pytest.fixture
def recipe(tmp_path: Path, base_folder: Path, shards_folder: Path) -> Callable[..., Path]:
    """Writes an anchoring recipe of a few small steps: `recipe(steps=4, ...)` is its file."""
    return partial(write_recipe, tmp_path, base_folder, shards_folder)


def write_recipe(folder: Path, base: Path, data: Path, /, name: str = "run", **changed: Any) -> Path:
    """Write an anchoring recipe of a few small steps into a folder."""
    options: dict[str, Any] = {
        "base": str(base), "data": str(data), "output": name, "steps": 4, "batch": 4, "size": 64, "rank": 2,
        "tokens": 2, "hidden_dim": 32, "depth": 1, "dim_head": 32, "learning_rate": 1e-3, "save_every": 100,
        "sample_every": 100,
    }  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps(options | changed))
    return path


def new_process() -> None:
    """What accelerate remembers of a process is forgotten."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def _each_test_a_process() -> Iterator[None]:
    new_process()
    yield
    new_process()


@pytest.fixture(autouse=True)
def _few_sampling_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample sheets are drawn in two steps: how they look is not asked here."""
    monkeypatch.setattr(denoise, "STEPS", 2)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
