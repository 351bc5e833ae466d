"""A batch of 16 frames on the trained miniature: each is the single picture of its motion and noise."""

import comfy.sample
import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.host.encode import encode
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.mini.train import judging
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.nodes.animate import AnimateMotion
from dynamicid_pack.nodes.apply import Apply
from torch import Tensor

from .stage import assert_other, assert_same

FRAMES = 16
FLOAT_NOISE = 1e-4
"""As a part of the latents: rows of a batch are summed in another order than a row alone, and steps multiply it."""
TEXT = "a portrait of a person in a green sweater, in a park"


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return load_miniature()


@pytest.fixture(scope="module")
def moving(miniature: Miniature) -> Identity:
    """Somebody who turns and laughs: the identity has 16 frames, no two alike."""
    with torch.inference_mode():
        image = torch.from_numpy(World(seed=9, held_out_people=True).sample(3, 1).picture().image).float().div(255)
        person = encode(image[None], miniature.dynamicid).identity
        animated, _ = AnimateMotion.execute(
            person, miniature.dynamicid, miniature.clip, keyframes="0: neutral, yaw -30; 15: happy, yaw 30",
            frames=FRAMES, source_expression="auto", strength=1.0,
        ).result  # fmt: skip
        return animated


def drawn(miniature: Miniature, person: Identity, noise: Tensor, cfg: float, steps: int = 2) -> Tensor:
    """Latents (n, 4, 16, 16) of a batch with one noise for each row."""
    (model,) = Apply.execute(miniature.model, miniature.dynamicid, {"person_0": person}, 1.0).args
    clip = miniature.clip
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (TEXT, ""))
    return comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        "euler",
        "normal",
        positive,
        negative,
        torch.zeros_like(noise),
        disable_pbar=True,
        seed=1,
    )


@pytest.mark.parametrize("cfg", [4.0, pytest.param(1.0, marks=pytest.mark.full)])
def test_a_batch_of_16_is_16_single_pictures(miniature: Miniature, moving: Identity, cfg: float) -> None:
    assert moving.frames == FRAMES and moving.curve is not None and len(moving.curve.tokens) == FRAMES
    noise = comfy.sample.prepare_noise(torch.zeros(FRAMES, 4, 16, 16), 7)
    batch = drawn(miniature, moving, noise, cfg)
    alone = [drawn(miniature, moving.at(frame), noise[frame : frame + 1], cfg) for frame in range(FRAMES)]
    for frame, single in enumerate(alone):
        assert_same(batch[frame : frame + 1], single, FLOAT_NOISE)
    still = drawn(miniature, moving.at(0), noise, cfg)
    assert_same(still[:1], batch[:1], FLOAT_NOISE)
    assert_other(batch[FRAMES - 1 :], still[FRAMES - 1 :], 1e-2)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_frames_turn_as_asked_and_stay_the_same_person(miniature: Miniature) -> None:
    """12 held-out people turn from 30 degrees left to 30 right and laugh; the judge tells yaws and likeness."""
    judge, off, alike = judging.judge(), [], []
    world = World(seed=9, held_out_people=True, pairs=(("neutral", 0.0),))  # others would turn out of sight
    for number in range(12):
        reference = world.sample(number, 1).picture().image
        person = encode(torch.from_numpy(reference).float().div(255)[None], miniature.dynamicid).identity
        animated, _ = AnimateMotion.execute(
            person, miniature.dynamicid, miniature.clip, keyframes="0: neutral, yaw -30; 15: happy, yaw 30",
            frames=FRAMES, source_expression="auto", strength=1.0,
        ).result  # fmt: skip
        noise = comfy.sample.prepare_noise(torch.zeros(FRAMES, 4, 16, 16), number)
        pictures = miniature.vae.decode(drawn(miniature, animated, noise, 4.0, 10)).mul(255).round().byte().numpy()
        (own,) = judge.faces(reference)
        for frame, picture in enumerate(pictures):
            face = max(judge.faces(picture), key=lambda face: face.box.area, default=None)
            off.append(face.pose[1] - own.pose[1] - (-30 + 4 * frame) if face else np.nan)
            alike.append(float(own.embedding @ face.embedding) if face else np.nan)
    assert np.isnan(off).mean() < 0.02, "frames without a face"
    likeness = np.nanmean(np.array(alike).reshape(-1, FRAMES), 0)
    drift = np.polyfit(np.arange(FRAMES), likeness, 1)[0] * (FRAMES - 1)
    wrong = np.nanmedian(np.abs(off))
    print(f"yaw off by {wrong:.1f} (median), {np.isnan(off).sum()} frames without a face")
    print(f"FaceSim by frame {likeness.round(3)}, drift {drift:.3f}")
    assert wrong < 6 and abs(drift) < 0.05
