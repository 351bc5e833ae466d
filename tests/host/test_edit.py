"""Edit Facial Motion on an IMR of random weights: the same numbers as IMR itself, whatever way they come."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import comfy.sd1_clip
import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import Checkpoint, save_checkpoint
from dynamicid_pack.dynamicid_core.host.edit import ALL, edit_motion
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.host.models import DynamicID, load_dynamicid
from dynamicid_pack.dynamicid_core.identity.faces import Face
from dynamicid_pack.dynamicid_core.identity.identity import Identity, mix
from dynamicid_pack.dynamicid_core.imr.landmarks import keypoint_image
from dynamicid_pack.dynamicid_core.imr.motion import EXPRESSIONS, source_motion, target_motion
from dynamicid_pack.dynamicid_core.imr.motion_text import described_motion
from dynamicid_pack.dynamicid_core.imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from dynamicid_pack.mini.networks import TEXT
from dynamicid_pack.mini.world.head import Head, Motion
from dynamicid_pack.mini.world.person import draw_person
from dynamicid_pack.nodes.edit import EditFacialMotion
from torch import Tensor

WIDTH = 128
ASKED = {
    "expression": "happy", "yaw": 0.0, "pitch": 0.0, "strength": 1.0, "prompt": "", "source_expression": "neutral",
    "source_prompt": "", "driving_strength": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return load_miniature()


@pytest.fixture(scope="module")
def dynamicid(miniature: Miniature) -> DynamicID:
    """The miniature's, with an IMR of its widths."""
    torch.manual_seed(3)
    imr = IdentityMotionReconfigurator(token_dim=WIDTH, motion_dim=768 + WIDTH, dim=128)
    made = miniature.dynamicid
    parts = (made.checkpoint.face_encoder, imr.state_dict(), KeypointEncoder().state_dict())
    return DynamicID(made.adapter, Checkpoint(made.adapter, *parts))


@pytest.fixture
def person() -> Identity:
    head = Head(draw_person(1), Motion(), (256.0, 256.0), 90.0)
    face = Face(
        landmarks=torch.from_numpy(head.landmarks()).float(), points68=torch.from_numpy(head.points68()).float(),
        pose=(0.0, 0.0, 0.0), size=(512, 512),
    )  # fmt: skip
    torch.manual_seed(4)
    return Identity(torch.randn(4, WIDTH), torch.randn(4, WIDTH), face=face)


def _features(miniature: Miniature, dynamicid: DynamicID, motion) -> tuple[Tensor, Tensor]:
    picture = torch.from_numpy(keypoint_image(motion.landmarks)).float() / 255 * 2 - 1
    keypoints = KeypointEncoder.from_weights(dynamicid.checkpoint.keypoint_encoder or {})(picture[None, None])
    clip = miniature.clip
    return keypoints, clip.encode_from_tokens(clip.tokenize(motion.prompt), return_pooled=True)[1]


def test_it_is_imr_on_both_motions(miniature: Miniature, dynamicid: DynamicID, person: Identity) -> None:
    source, target = source_motion(person.face), target_motion(person.face, "surprise", yaw=25.0)
    imr = IdentityMotionReconfigurator.from_weights(dynamicid.checkpoint.imr or {})
    expected = imr(person.tokens[None], *(_features(miniature, dynamicid, motion) for motion in (source, target)))[0]
    edited = edit_motion(person, dynamicid, miniature.clip, source, target)
    assert torch.allclose(edited.tokens, expected, atol=1e-5)
    assert edited.face_prompt == target.prompt and torch.equal(edited.negative_tokens, person.negative_tokens)
    half = edit_motion(person, dynamicid, miniature.clip, source, target, 0.5)
    assert torch.allclose(half.tokens, (person.tokens + expected) / 2, atol=1e-5)


def test_strength_0_is_the_identity_itself(miniature: Miniature, dynamicid: DynamicID, person: Identity) -> None:
    motion = target_motion(person.face, "sad", yaw=30.0)
    assert edit_motion(person, dynamicid, miniature.clip, motion, motion, 0.0) is person


def test_of_a_mixed_identity_both_people_are_edited(
    miniature: Miniature, dynamicid: DynamicID, person: Identity
) -> None:
    other = Identity(torch.randn(4, WIDTH), torch.randn(4, WIDTH), face=person.face)
    source, target = source_motion(person.face), target_motion(person.face, "fear")
    both = edit_motion(mix(person, other, 0.5), dynamicid, miniature.clip, source, target)
    alone = [edit_motion(one, dynamicid, miniature.clip, source, target).tokens for one in (person, other)]
    assert torch.allclose(both.tokens, torch.cat(alone), atol=1e-5) and both.shares == (0.5, 0.5)


def test_a_mixture_is_read_as_the_sum_of_its_prompts_states(
    miniature: Miniature, dynamicid: DynamicID, person: Identity
) -> None:
    source, mixed = source_motion(person.face), described_motion(person.face, "happy 0.7, sad 0.2, yaw 15")
    imr = IdentityMotionReconfigurator.from_weights(dynamicid.checkpoint.imr or {})
    texts = {}
    for name in ("happy", "sad", "neutral"):
        alone = target_motion(person.face, name, yaw=15.0)
        keypoints, texts[name] = _features(miniature, dynamicid, alone)
    text = 0.7 * texts["happy"] + 0.2 * texts["sad"] + 0.1 * texts["neutral"]
    expected = imr(person.tokens[None], _features(miniature, dynamicid, source), (keypoints, text))[0]
    edited = edit_motion(person, dynamicid, miniature.clip, source, mixed)
    assert torch.allclose(edited.tokens, expected, atol=1e-5)


def test_one_whole_expression_in_writing_is_the_chosen_one_bit_for_bit(
    miniature: Miniature, dynamicid: DynamicID, person: Identity
) -> None:
    def edited(**changed: Any) -> Tensor:
        (one,), _ = EditFacialMotion.execute(person, dynamicid, miniature.clip, **ASKED | changed).result
        return one.tokens

    assert torch.equal(edited(prompt="happy 1.0"), edited())
    assert torch.equal(edited(prompt="happy 1, yaw 10", yaw=10.0), edited(yaw=20.0))
    assert torch.equal(edited(roll=0.0), edited())
    assert not torch.equal(edited(roll=20.0), edited())
    assert not torch.equal(edited(prompt="happy 0.5"), edited())


@pytest.mark.parametrize(
    ("changed", "prompts"),
    [
        ({}, ["in a happy expression, in front view"]),
        ({"expression": ALL}, [f"in a {name} expression, in front view" for name in EXPRESSIONS]),
        ({"yaw": 30.0, "pitch": -20.0}, ["in a happy expression, facing down, in side view"]),
        (
            {"prompt": "happy 0.5, yaw 20\nwinking", "pitch": 20.0},
            ["in a 0.5 neutral + 0.5 happy expression, facing up, in side view", "winking"],
        ),
        ({"prompt": "winking\n\n  laughing out loud "}, ["winking", "laughing out loud"]),
    ],
)
def test_the_node_makes_a_person_for_each_motion(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, changed: dict, prompts: list[str]
) -> None:
    people, picture = EditFacialMotion.execute(person, dynamicid, miniature.clip, **ASKED | changed).result
    assert [edited.face_prompt for edited in people] == prompts
    assert picture.shape == (len(prompts), 512, 512, 3) and picture.std() > 0.01
    tokens = torch.stack([edited.tokens for edited in people])
    assert len(torch.unique(tokens, dim=0)) == len(prompts)


def test_a_person_who_was_skipped_stays_absent(miniature: Miniature, dynamicid: DynamicID) -> None:
    assert EditFacialMotion.execute(None, dynamicid, miniature.clip, **ASKED).result[0] == [None]


def test_the_panel_is_told_the_face_and_what_was_asked_for(
    miniature: Miniature, dynamicid: DynamicID, person: Identity
) -> None:
    """In plain numbers and words, which the host sends as JSON; of the face what moves keypoints, no embedding."""
    asked = ASKED | {"yaw": 20.0, "source_landmarks": None}
    (told,) = json.loads(json.dumps(EditFacialMotion.execute(person, dynamicid, miniature.clip, **asked).ui))[
        "dynamicid_motion"
    ]
    assert told["face"].keys() == {"points", "scale", "pivot", "pose", "squash", "driven"}
    assert told["inputs"]["yaw"] == 20 and told["inputs"]["expression"] == "happy"
    assert not told["inputs"].keys() & {"identity", "clip", "driving_image", "landmarks", "source_landmarks"}
    faceless = Identity(person.tokens, person.negative_tokens)
    (told,) = EditFacialMotion.execute(faceless, dynamicid, miniature.clip, **ASKED).ui["dynamicid_motion"]
    assert told["face"] is None


def test_without_imr_it_says_what_to_choose(miniature: Miniature, person: Identity) -> None:
    made = miniature.dynamicid
    without = DynamicID(made.adapter, Checkpoint(made.adapter, made.checkpoint.face_encoder, None, None))
    with pytest.raises(ValueError, match="IMR is not loaded: choose"):
        EditFacialMotion.execute(person, without, miniature.clip, **ASKED)


def test_the_references_blendshapes_tell_its_expression(
    miniature: Miniature, dynamicid: DynamicID, person: Identity
) -> None:
    shown = {"frames": [[{"blendshapes": {"mouthFrownLeft": 0.8, "mouthFrownRight": 0.8, "browInnerUp": 0.7}}]]}
    (said,), _ = EditFacialMotion.execute(
        person, dynamicid, miniature.clip, **ASKED | {"source_expression": "sad"}
    ).result
    (read,), _ = EditFacialMotion.execute(person, dynamicid, miniature.clip, **ASKED, source_landmarks=shown).result
    (neutral,), _ = EditFacialMotion.execute(person, dynamicid, miniature.clip, **ASKED).result
    assert torch.equal(said.tokens, read.tokens) and not torch.equal(said.tokens, neutral.tokens)


def test_a_prompt_longer_than_77_tokens_is_read_as_far_as_it_goes(
    miniature: Miniature, dynamicid: DynamicID, person: Identity
) -> None:
    (edited,), _ = EditFacialMotion.execute(
        person, dynamicid, miniature.clip, **ASKED | {"prompt": "happy " * 200}
    ).result
    assert edited.tokens.isfinite().all()


@pytest.mark.parametrize("word", ["key_point_encoder", "keypoint_encoder"])
def test_the_releases_second_file_is_found_beside_the_first(tmp_path: Path, dynamicid: DynamicID, word: str) -> None:
    whole = dynamicid.checkpoint
    save_checkpoint(Checkpoint(whole.adapter, whole.face_encoder, None, None), tmp_path / "SAA.safetensors")
    torch.save(whole.imr, tmp_path / "my_IMR.bin")
    torch.save(whole.keypoint_encoder, tmp_path / f"my_{word}.bin")
    loaded = load_dynamicid(tmp_path / "SAA.safetensors", tmp_path / "my_IMR.bin")
    assert loaded.checkpoint.keypoint_encoder is not None
    assert len(loaded.imr) == 2


def test_the_pooled_text_is_transformers() -> None:
    """SD1.5's text encoder in the host, in small, against transformers' CLIPTextModel on the same weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(5)
    with torch.inference_mode(False):
        theirs = CLIPTextModel(CLIPTextConfig(**TEXT)).eval()
    # as SD1CheckpointClipModel, whose sizes are fixed
    small = partial(comfy.sd1_clip.SDClipModel, textmodel_json_config=dict(TEXT), return_projected_pooled=False)
    ours = comfy.sd1_clip.SD1ClipModel(dtype=torch.float32, clip_model=small)
    # transformers 5 leaves the prefix out
    weights = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in theirs.state_dict().items()}
    missing, unexpected = ours.clip_l.transformer.load_state_dict(weights, strict=False)
    assert not unexpected and all("text_projection" in name for name in missing), (missing, unexpected)
    tokenizer = comfy.sd1_clip.SD1Tokenizer()
    for prompt in ("in a happy expression, in front view", "a (happy:1.5) face", ""):
        tokens = tokenizer.tokenize_with_weights(prompt)
        _, pooled = ours.encode_token_weights(tokens)
        ids = torch.tensor([[token for token, _ in tokens["l"][0]]])
        expected = theirs(input_ids=ids).pooler_output
        assert torch.linalg.norm(pooled - expected) / torch.linalg.norm(expected) < 1e-5
