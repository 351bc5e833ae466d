"""The training loop, the drawn pictures, and a short version of the autoencoder's stage."""

import json
import shutil
from dataclasses import replace
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.image_grid import image_grid
from dynamicid_pack.dynamicid_core.training.history import read_losses
from dynamicid_pack.dynamicid_core.training.rng import seeded_generator
from dynamicid_pack.dynamicid_core.training.trainer import Trainer, learning_rate_factor
from dynamicid_pack.mini import __main__ as commands
from dynamicid_pack.mini.__main__ import main
from dynamicid_pack.mini.train import command, figures, pictures
from dynamicid_pack.mini.train import stage as stages
from dynamicid_pack.mini.train.autoencoder import AutoencoderStage, decode, encode, load
from dynamicid_pack.mini.train.pictures import Pictures, numbers_of, turns
from dynamicid_pack.mini.train.stage import Stage, StageConfig, TrainContext
from dynamicid_pack.mini.world.world import World
from torch import nn

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(pictures, "SHARD", 8)


@pytest.fixture
def context(tmp_path):
    return TrainContext(tmp_path)


class Line(Stage):
    """Finds the line through points: a stage that takes no time."""

    name = "line"
    config = StageConfig(steps=40, warmup_steps=4, learning_rate=0.05)

    def network(self):
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def step_losses(self, network, step, rng):
        x = torch.randn(16, 2, generator=rng)
        return {"loss": (network(x)[:, 0] - x @ torch.tensor([2.0, -1.0])).square().mean()}

    def measures(self, network):
        return {"bias": float(network[2].bias)}


def quiet(line):
    pass


def parameters(training):
    return {name: tensor.clone() for name, tensor in training.stage.trained.state_dict().items()} | {
        f"averaged.{name}": tensor.clone() for name, tensor in training.ema.module.state_dict().items()
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


# --- the loop ---


def test_a_training_learns_and_leaves_its_curves_weights_and_measures(context):
    training = Trainer(Line(context), log=quiet)
    training.run()
    losses = [losses["loss"] for _, losses in read_losses(context.folder / "line" / "losses.csv", 5)]
    assert losses[-1] < 0.5 * losses[0]
    assert json.loads((context.folder / "line" / "measures.json").read_text()).keys() == {"bias"}
    assert (context.folder / "line" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert context.stored("line").keys() == training.stage.trained.state_dict().keys()


@pytest.mark.parametrize("killed_at", [1, 17, 39])
def test_going_on_after_a_kill_gives_the_same_parameters(tmp_path, killed_at):
    whole = Trainer(Line(TrainContext(tmp_path / "whole")), log=quiet)
    whole.run()
    parts = TrainContext(tmp_path / "parts")
    Trainer(Line(parts), log=quiet).run(until=killed_at)
    killed = Trainer(Line(parts), log=quiet)  # two more steps that no checkpoint holds
    for _ in range(2):
        killed.one_step()
    resumed = Trainer(Line(parts), log=quiet)
    assert resumed.step == killed_at
    resumed.run()
    assert_same(parameters(resumed), parameters(whole))


def test_a_stopped_training_ends_with_a_checkpoint(context):
    class Stopping(Line):
        def step_losses(self, network, step, rng):
            if step == 6:
                training.stop()
            return super().step_losses(network, step, rng)

    training = Trainer(Stopping(context), log=quiet)
    training.run()
    assert training.stopped and Trainer(Line(context), log=quiet).step == 7


def test_a_training_goes_on_from_stored_weights_where_no_checkpoint_is_left(context, monkeypatch):
    monkeypatch.setattr(stages, "NOTED", 5)
    before = Trainer(Line(context), log=quiet)
    before.run(until=10)
    shutil.rmtree(context.folder / "line" / "checkpoint-00000010")
    (context.folder / "line" / "losses.csv").unlink()
    training = Trainer(Line(context), log=quiet)
    history = read_losses(context.folder / "line" / "losses.csv", 5)
    assert training.step == 10 and [step for step, _ in history] == [5, 10]
    for network in (training.stage.trained, training.ema.module):
        assert torch.equal(network.get_parameter("0.weight"), before.ema.module.get_parameter("0.weight"))
    training.run()
    assert training.step == 40


def test_stored_weights_of_another_network_are_not_taken(context):
    class Deeper(Line):
        def network(self):
            return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))

    Trainer(Line(context), log=quiet).run(until=10)
    shutil.rmtree(context.folder / "line" / "checkpoint-00000010")
    with pytest.raises(ValueError, match="got others"):
        Trainer(Deeper(context), log=quiet)


def test_a_half_written_checkpoint_is_not_taken(context):
    Trainer(Line(context), log=quiet).run(until=10)
    (context.folder / "line" / "part").mkdir()
    assert Trainer(Line(context), log=quiet).step == 10


def test_another_seed_is_another_training(tmp_path):
    weights = []
    for seed in (0, 1):
        training = Trainer(Line(TrainContext(tmp_path / str(seed), seed)), log=quiet)
        training.run(until=3)
        weights.append(parameters(training)["0.weight"])
    assert not torch.equal(*weights)


def test_steps_draw_from_seed_stage_and_step_alone():
    numbers = {seeded_generator(*key).initial_seed() for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]}
    assert len(numbers) == 4
    assert seeded_generator(0, "a", 7).initial_seed() == seeded_generator(0, "a", 7).initial_seed()


def test_the_learning_rate_rises_stays_and_falls():
    rates = [learning_rate_factor(Line.config, step) for step in range(Line.config.steps + 1)]
    assert rates[0] == 0.25 and rates[10] == 1.0 and rates[-1] == 0.0
    assert rates[28:] == sorted(rates[28:], reverse=True)


def test_a_step_without_a_finite_gradient_changes_nothing(context):
    class Broken(Line):
        def step_losses(self, network, step, rng):
            losses = super().step_losses(network, step, rng)
            return {"loss": losses["loss"] * float("nan")} if step == 1 else losses

    training = Trainer(Broken(context), log=quiet)
    training.one_step()
    before = training.stage.trained[0].weight.clone()
    training.one_step()
    assert torch.equal(training.stage.trained[0].weight, before)


def test_a_missing_stage_is_named(context):
    with pytest.raises(ValueError, match="train it first"):
        context.stored("autoencoder")


def test_the_command_refuses_a_folder_inside_the_checkout(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--checkpoints", "mini/checkpoints"])
    assert "outside the checkout" in capsys.readouterr().err


def test_each_command_has_the_arguments_of_its_function():
    (parsers,) = (dict[str, Any](action.choices) for action in commands.parser()._actions if action.choices)
    assert parsers.keys() == commands.COMMANDS.keys()
    for name, parser in parsers.items():
        module, function, _ = commands.COMMANDS[name]
        called = getattr(import_module(f"dynamicid_pack.mini.{module}"), function)
        assert {action.dest for action in parser._actions} - {"help"} == signature(called).parameters.keys(), name
    assert tuple(command.STAGES) == commands.STAGES


# --- pictures ---


def test_drawn_pictures_are_the_worlds(drawn):
    world = World(seed=5)
    images, truth = Pictures(drawn, world, 2, 16).take(np.array([3, 11]))
    for i, number in enumerate((3, 11)):
        sample = world.sample(number, 2)
        picture = sample.picture()
        assert np.array_equal(images[i], picture.image)
        assert truth.caption[i] == sample.caption
        assert [p.seed for p in truth.people()[2 * i : 2 * i + 2]] == [face.person.seed for face in picture.faces]
        assert np.array_equal(truth.landmarks[i], [face.landmarks for face in picture.faces])
        assert pictures.NAMES[truth.expression[i, 0]] == picture.faces[0].motion.expression


def test_every_turn_reads_each_number_once_in_another_order():
    numbers = [int(number) for step in range(12) for number in numbers_of(step, 4, 16)]
    turns = [numbers[i : i + 16] for i in range(0, 48, 16)]
    assert turns[0] == list(range(16))
    assert all(sorted(turn) == turns[0] for turn in turns) and turns[1] != turns[0]


def test_of_two_sorts_no_batch_is_left_out():
    schedule = [turns(step, 4) for step in range(12)]
    assert [turn for rare, turn in schedule if rare] == [0, 1, 2]
    assert [turn for rare, turn in schedule if not rare] == list(range(9))


def test_all_pictures_are_in_order(drawn):
    data = Pictures(drawn, World(seed=5), 2, 12)
    captions = data.all()[1].caption.tolist()
    assert captions == [data.world.sample(i, 2).caption for i in range(12)]


def test_figures():
    history = [(step, {"loss": 10.0 / step, "edges": 0.01}) for step in range(10, 110, 10)]
    sheet = figures.curves(history)
    assert sheet.shape == (360, 640, 3) and (sheet < 200).any()
    assert figures.curves([]).min() == 255
    assert image_grid([np.zeros((4, 6, 3), np.uint8)] * 3, 2).shape == (8, 12, 3)


# --- the autoencoder ---


class Short(AutoencoderStage):
    config = AutoencoderStage.config.model_copy(update={"steps": 3, "warmup_steps": 1})
    portraits, groups = 2, 1

    def __init__(self, context, drawn):
        super().__init__(context, 16)
        self.portrait_data.folder = drawn / "portraits"
        self.group_data.folder = drawn / "groups"
        self.held_out.folder = drawn / "held-out"

    def samples(self, network):
        return None

    def measures(self, network):
        return {}


@pytest.fixture
def trained(context, drawn):
    Trainer(Short(context, drawn), log=quiet).run()
    return context


def test_the_autoencoder_resumes_exactly(tmp_path, drawn, trained):
    parts = replace(trained, folder=tmp_path / "parts")
    Trainer(Short(parts, drawn), log=quiet).run(until=2)
    Trainer(Short(parts, drawn), log=quiet).run()
    assert_same(parts.stored("autoencoder"), trained.stored("autoencoder"))


def test_the_host_loads_the_autoencoder_and_agrees_with_it(trained, drawn, host):
    import comfy.sd

    network = load(trained)
    images = Short(trained, drawn).held_out.take(np.arange(2))[0]
    latents = encode(network, images, trained)
    assert latents.shape == (2, 4, 16, 16)
    vae = comfy.sd.VAE(sd=trained.stored("autoencoder"))
    with torch.inference_mode():
        encoded = vae.encode(torch.from_numpy(images).float() / 255)
        decoded = vae.decode(encoded)
    # the host's latents are divided by SD1.5's factor, which its latent format multiplies by
    assert torch.allclose(encoded.float() * 0.18215, latents, atol=1e-3)
    made = decode(network, latents, trained)
    assert np.abs((decoded.float().numpy() * 255).round() - made).max() <= 2
