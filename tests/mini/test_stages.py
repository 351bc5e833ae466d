"""Short versions of the judge's, the encoders' and the UNet's stages, and their networks in the host."""

import json
from functools import partial
from types import MethodType

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.training.trainer import Trainer
from dynamicid_pack.mini import networks
from dynamicid_pack.mini.train import drawing, encoders, flux, judge, pictures, text, unet, vision
from dynamicid_pack.mini.train.autoencoder import AutoencoderStage
from dynamicid_pack.mini.train.expression import ExpressionStage
from dynamicid_pack.mini.train.pictures import Pictures
from dynamicid_pack.mini.train.stage import TrainContext
from dynamicid_pack.mini.train.words import SAYINGS, Words, labels_of
from dynamicid_pack.mini.world.caption import PersonSpec
from dynamicid_pack.mini.world.world import World


def quiet(line):
    pass


pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(pictures, "SHARD", 8)


def short(stage, steps=2):
    """A stage without its pictures and measures, in which a few steps are all."""
    stage.config = stage.config.model_copy(update={"steps": steps, "warmup_steps": 1})
    stage.samples = MethodType(lambda self, network: None, stage)
    stage.measures = MethodType(lambda self, network: {}, stage)
    return stage


def small_judge(context):
    stage = short(judge.JudgeStage(context, 32))
    stage.people, stage.groups = 2, 1
    stage.held_out.size = 8
    for groups in stage.held_out_groups:
        groups.size = 8
    return stage


def small_vision(context):
    stage = short(vision.VisionStage(context, 96))
    stage.batch = 4
    return stage


def small_text(context):
    stage = short(text.TextStage(context, 96))
    stage.batch = 4
    return stage


def small_unet(context):
    stage = short(unet.UNetStage(context, 96))
    stage.portraits, stage.groups = 2, 1
    return stage


def small_flux(context):
    stage = short(flux.FluxStage(context, 96))
    stage.portraits, stage.groups = 2, 1
    return stage


def small_autoencoder(context):
    stage = short(AutoencoderStage(context, 16))
    stage.portraits = stage.groups = 1
    return stage


def small_expression(context):
    stage = short(ExpressionStage(context, 18))
    stage.batch, stage.held_out.size = 4, 8
    return stage


BASE = {
    "autoencoder": small_autoencoder,
    "judge": small_judge,
    "vision": small_vision,
    "text": small_text,
    "unet": small_unet,
    "flux": small_flux,
    "expression": small_expression,
}


@pytest.fixture(scope="module")
def context(tmp_path_factory, host):
    """All stages, trained for two steps in their order."""
    train_context = TrainContext(tmp_path_factory.mktemp("base"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "SHARD", 8)
        for make in BASE.values():
            Trainer(make(train_context), log=quiet).run()
    return train_context


@pytest.mark.parametrize("name", ["judge", "vision", "text", "unet", "flux", "expression"])
def test_each_stage_resumes_exactly(context, tmp_path, name):
    parts = TrainContext(tmp_path)
    for other in context.folder.iterdir():
        if other.name != name:
            (tmp_path / other.name).symlink_to(other)
    Trainer(BASE[name](parts), log=quiet).run(until=1)
    Trainer(BASE[name](parts), log=quiet).run()
    resumed, whole = parts.stored(name), context.stored(name)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


# --- the judge ---


def test_a_gallery_shows_each_person_in_a_row_in_other_pictures():
    world = judge.Gallery(seed=3, views=4)
    samples = [world.sample(i) for i in range(8)]
    people = [sample.scene.figures[0].person.seed for sample in samples]
    assert people == [people[0]] * 4 + [people[4]] * 4 and people[0] != people[4]
    assert len({sample.scene.seed for sample in samples}) == 8


def test_faces_are_found_where_the_cells_say(tmp_path):
    truth = Pictures(tmp_path, World(seed=3), 3, 8).take(np.arange(8))[1]
    peaks, offsets = judge._cells(truth.box, 128, 256)
    detections = judge.find_faces(torch.cat([torch.logit(peaks[:, None].clamp(1e-3, 1 - 1e-3)), offsets], 1))
    for boxes, true in zip(detections, truth.box, strict=True):
        assert np.allclose(boxes.numpy(), true, atol=1e-3)


def test_a_cut_is_centred_on_the_face():
    image = torch.zeros(1, 3, 128, 128)
    image[..., 40:80, 60:90] = 1
    cropped = judge.crop_faces(image, torch.tensor([[60.0, 40.0, 90.0, 80.0]]))[0, 0]
    rows, columns = torch.nonzero(cropped > 0.5, as_tuple=True)
    assert abs(float(rows.float().mean()) - 47.5) < 1 and abs(float(columns.float().mean()) - 47.5) < 1
    assert abs(float(rows.max() - rows.min() + 1) - judge.CROP / judge.AROUND) < 3


def test_people_told_apart_by_perfect_embeddings():
    persons = np.repeat(np.arange(20), 4)
    perfect = np.eye(20, dtype=np.float32)[persons]
    assert judge.identified_share(perfect, persons) == 1.0
    assert judge.identified_share(np.roll(perfect, 1, 1) * (np.arange(80) % 4 > 0)[:, None], persons) < 0.2


def test_the_ends_of_likeness_by_perfect_embeddings():
    persons = np.repeat(np.arange(20), 4)
    assert judge.similarity_ends(np.eye(20, dtype=np.float32)[persons], persons) == (1.0, 0.0)
    assert judge.similarity_ends(np.ones((80, 1), np.float32), persons) == (1.0, 1.0)


def test_what_cannot_be_seen_has_no_label(tmp_path):
    truth = Pictures(tmp_path, World(seed=3), 1, 64).take(np.arange(64))[1]
    kinds = judge.true_kinds(truth)
    assert ((kinds["glasses_colour"] == -1) == (kinds["glasses"] == 0)).all()
    assert kinds.keys() == judge.KINDS.keys() and all(len(kinds[name]) == 64 for name in kinds)


def test_the_judge_reports_shares(context):
    network = context.load("judge", judge.Judge())
    report = judge.JudgeStage.measures(small_judge(context), network, lambda images: 255 - images)
    shares = {name: share for name, share in report.items() if not name.endswith("_degrees")}
    assert {"expression", "glasses", "hair", "colour", "place", "count", "person_of_100"} <= shares.keys()
    assert all(0 <= share <= 1 for share in shares.values())


# --- the encoders ---


def test_every_caption_is_made_of_known_words_and_fits(context):
    words = Words()
    for count in (1, 2, 3):
        for i in range(60):
            numbers = words.numbers(World(seed=9, omit_prob=0.0).sample(i, count).caption)
            assert words.unknown not in numbers and len(numbers) <= 77
            assert numbers[0] == words.start and numbers[-1] == words.end
    assert words.unknown in words.numbers("a portrait of a zebra")


def test_of_whom_a_word_speaks(context):
    vocabulary = Words()
    caption = "three people, on the left in a red hoodie, the face is slightly turned to the left, on the right happy"
    tokens = vocabulary.batch([caption])
    whom = vocabulary.spoken_of(tokens)[0, : len(vocabulary.numbers(caption))].tolist()
    left, right = whom.index(1), whom.index(3)
    assert set(whom[:left]) == {0} and set(whom[left:right]) == {1} and set(whom[right:]) == {3}
    assert vocabulary.spoken_of(vocabulary.batch(["a portrait of a person, facing up"])).sum() == 0


def test_what_a_caption_says_is_numbered_and_its_silence_too():
    labels = labels_of(
        ["a portrait of a person in a red hoodie, facing up", "two people, at night, on the right in side view"]
    )
    assert labels.keys() == SAYINGS.keys()
    told = {name: [SAYINGS[name][i] if i >= 0 else None for i in labels[name]] for name in labels}
    assert told["count"] == [1, 2] and told["place"] == [None, "at night"]
    assert told["colour_0"] == ["red", None] and told["tilt_0"] == ["facing up", None]
    assert told["view_1"] == [None, "in side view"] and told["view_0"] == [None, None]


def test_states_that_tell_their_words_are_told_from_those_that_do_not(context):
    reader, captions = text.Reader(), ["two people, on the left in a red hoodie", "a portrait of a person, at night"]
    tokens = Words().batch(captions)
    blind = torch.randn(2, 77, networks.CONTEXT_DIM)
    telling = reader.word.weight[tokens] + reader.whom.weight[Words().spoken_of(tokens)]
    with torch.no_grad():
        worse = reader.told(blind, tokens, captions, torch.Generator().manual_seed(0))["words"]
        better = reader.told(telling, tokens, captions, torch.Generator().manual_seed(0))["words"]
    assert better < 0.5 * worse


def test_the_host_reads_captions_as_the_trainer(context):
    import comfy.sd1_clip

    network = encoders.load_text(context)
    captions = ["two people, at the beach, on the left in a red shirt, in a happy expression", "", "a zebra, 4k"]
    with torch.no_grad():
        states, vectors = encoders.read(network, Words().batch(captions))
    model = comfy.sd1_clip.SDClipModel(textmodel_json_config=dict(networks.TEXT), dtype=torch.float32)
    missing, unexpected = model.transformer.load_state_dict(
        networks.with_all_rows(context.stored("text")), strict=False
    )
    assert not missing and not unexpected
    tokenizer = comfy.sd1_clip.SDTokenizer(embedding_size=networks.CONTEXT_DIM)
    for i, caption in enumerate(captions):
        with torch.no_grad():
            encoded, pooled = model.encode_token_weights(tokenizer.tokenize_with_weights(caption))
        assert torch.allclose(encoded[0], states[i], atol=1e-4)
        assert torch.allclose(pooled[0], vectors[i], atol=1e-4)


def test_the_host_sees_pictures_as_the_trainer(context, tmp_path):
    import comfy.clip_vision

    network = encoders.load_vision(context)
    images = torch.rand(2, 3, 128, 128).mul(255).round() / 255
    with torch.no_grad():
        states, vectors = encoders.see(network, images)
    config = tmp_path / "vision.json"
    config.write_text(json.dumps(networks.VISION))
    model = comfy.clip_vision.ClipVisionModel(str(config))
    missing, unexpected = model.load_sd(context.stored("vision"))
    assert not missing and not unexpected
    with torch.inference_mode():
        output = model.encode_image(images.permute(0, 2, 3, 1))
    assert output.penultimate_hidden_states.shape == (2, 65, 192)
    # in half precision, as the host chooses
    assert torch.allclose(output.penultimate_hidden_states.float(), states, atol=2e-2)
    assert torch.allclose(output.image_embeds.float(), vectors, atol=2e-2)


# --- the UNet ---


def test_the_host_runs_the_unet_as_the_trainer(context):
    import comfy.model_sampling
    import comfy.supported_models

    config = comfy.supported_models.SD15(dict(networks.UNET))
    config.unet_config.update(networks.UNET)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=torch.device("cpu"))
    torch.manual_seed(0)
    # what blocks add begins at zero: weights of chance let attention count
    weights = {name: torch.randn_like(w) * 0.05 if w.ndim > 1 else w for name, w in context.stored("unet").items()}
    model.diffusion_model.load_state_dict(weights)
    network = unet.comfyui.unet()
    network.load_state_dict(weights)
    assert sum(p.numel() for p in network.parameters()) == 12_634_244
    x, states = torch.randn(1, 4, 16, 32), torch.randn(1, 77, 128)
    time = 600
    sigma = model.model_sampling.sigmas[time : time + 1]
    left = unet.alphas_cumprod()[time]
    assert torch.allclose(sigma, ((1 - left) / left).sqrt(), rtol=1e-4)
    with torch.inference_mode():
        noise = network(x, torch.tensor([time]), states, transformer_options=unet.OPTIONS)
        # the host scales what it is given, and turns the noise into the picture
        denoised = model.apply_model(x / left.sqrt(), sigma, c_crossattn=states)
    assert torch.allclose(denoised, (x - (1 - left).sqrt() * noise) / left.sqrt(), atol=1e-3)


# --- the transformer ---


def chance_flux():
    """The trainer's Flux, whose every layer counts."""
    torch.manual_seed(0)
    network = flux.comfyui.flux()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else torch.nn.init.normal_(parameter, 1, 0.1)
    return network


def test_the_host_runs_the_transformer_as_the_trainer():
    import comfy.ldm.flux.model
    import comfy.ops

    trained = chance_flux()
    assert sum(p.numel() for p in trained.parameters()) == 10_067_856
    network = comfy.ldm.flux.model.Flux(**networks.FLUX, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    network.load_state_dict(trained.state_dict())
    x, states, pooled = torch.randn(2, 4, 16, 32), torch.randn(2, 77, 128), torch.randn(2, 128)
    times = torch.tensor([0.9, 0.2])
    with torch.inference_mode():
        expected = network(x, times, states, pooled)
        assert expected.std() > 0.1
        assert torch.allclose(trained(x, times, states, pooled, transformer_options=flux.OPTIONS), expected, atol=1e-4)


def test_diffusers_runs_the_transformer_as_the_trainer():
    from dynamicid_pack.mini.train.export import transformer

    trained = chance_flux()
    network = transformer(trained.state_dict())
    x, states, pooled = torch.randn(2, 4, 16, 32), torch.randn(2, 77, 128), torch.randn(2, 128)
    times = torch.tensor([0.9, 0.2])
    patches = x.unflatten(2, (8, 2)).unflatten(4, (16, 2))  # b c h p w q
    packed = patches.permute(0, 2, 4, 1, 3, 5).reshape(2, 128, 16)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(16.0), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
    with torch.inference_mode():
        drawn = network(packed, states, pooled, times, img_ids=places, txt_ids=torch.zeros(77, 3)).sample
        expected = trained(x, times, states, pooled, transformer_options=flux.OPTIONS)
    unpacked = drawn.reshape(2, 8, 16, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
    assert expected.std() > 0.1 and torch.allclose(unpacked, expected, atol=1e-4)


def test_every_layer_of_the_transformer_learns():
    """The host adds to its streams in place: what a gradient needs must have been kept."""
    network, generator = chance_flux(), torch.Generator().manual_seed(0)
    x, states, pooled = (torch.randn(size, generator=generator) for size in ((1, 4, 8, 8), (1, 77, 128), (1, 128)))
    inputs = (torch.tensor([0.4]), states, pooled)

    def loss():
        return network(x, *inputs, transformer_options=flux.OPTIONS).square().mean()

    loss().backward()
    silent = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().max() > 0]
    assert not silent
    weight = network.double_blocks[0].img_attn.norm.query_norm.weight
    gradient, before = weight.grad[3].item(), weight.data.clone()
    with torch.no_grad():
        weight[3] = before[3] + 1e-2
        above = loss()
        weight[3] = before[3] - 1e-2
        below = loss()
    assert gradient == pytest.approx(float(above - below) / 2e-2, rel=2e-2)


def test_the_transformer_reads_the_texts_end_before_its_projection(context):
    """As the host's pooled text is, and IMR's."""
    network, tokens = encoders.load_text(context), Words().batch(["a portrait of a person", ""])
    states, pooled = encoders.read_pooled(network, tokens)
    vectors = encoders.read(network, tokens)[1]
    projected = torch.nn.functional.linear(pooled, network.get_parameter("text_projection.weight"))
    assert torch.allclose(projected, vectors, atol=1e-5)
    assert states.shape == (2, 77, 128) and not torch.allclose(pooled, vectors, atol=0.1)


@pytest.mark.parametrize(("module", "small"), [(unet, small_unet), (flux, small_flux)], ids=["unet", "flux"])
def test_sampling_draws_pictures_of_the_right_size(context, monkeypatch, module, small):
    monkeypatch.setattr(module, "sample", partial(module.sample, steps=2))
    stage = small(context)
    network = stage.network()
    images = stage.drawn(network, ["two people", "a portrait of a person"], (16, 32), seed=1)
    assert images.shape == (2, 128, 256, 3) and images.dtype == np.uint8
    again = stage.drawn(network, ["two people", "a portrait of a person"], (16, 32), seed=1)
    assert np.array_equal(images, again)


def test_people_are_looked_for_in_their_own_columns():
    def boxes(*middles: float) -> torch.Tensor:
        return torch.tensor([[x - 20, 40, x + 20, 80] for x in middles]).reshape(-1, 4)

    assert drawing.in_columns(boxes(60, 200), 2, 256) == [0, 1]
    assert drawing.in_columns(boxes(150, 200), 2, 256) == [None, 1]
    assert drawing.in_columns(boxes(20, 50, 110), 2, 256) == [1, None]
    assert drawing.in_columns(boxes(), 3, 256) == [None] * 3


def test_a_face_is_as_its_caption_specifies():
    kinds = {"colour": np.array([0, 2]), "garment": np.array([1, 3]), "expression": np.array([1, 2])}
    numbers = ([[0]] * 2, [[0, 21, 0]] * 2, [[0] * 4] * 2, [[0] * 7] * 2)
    verdict = judge.Verdict(kinds, *(np.array(x, np.float32) for x in numbers))
    look = PersonSpec("red", "t-shirt", drawing.NAMES[1], view="the face is slightly turned to the right", posed=True)
    assert all(drawing.as_specified(look, verdict, 0).values())
    assert drawing.as_specified(look, verdict, 1) == {
        "colour": False, "garment": False, "clothes": False, "expression": False, "view": True,
    }  # fmt: skip
    assert not any(drawing.as_specified(look, verdict, None).values()) and not any(
        drawing.as_specified(look, None, 0).values()
    )


@pytest.mark.full
def test_the_judge_measures_the_unets_pictures(context):
    stage = small_unet(context)
    measured = unet.UNetStage.measures(stage, unet.comfyui.unet(), (2, 1, 1))
    assert {"place", "count"} <= measured.keys() and all(0 <= share <= 1 for share in measured.values())
