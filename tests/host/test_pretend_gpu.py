"""A GPU, pretended: where tensors lie, and what a GPU would have to wait for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import comfy.sample
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from dynamicid_pack.dynamicid_core.host import identity_attention
from dynamicid_pack.dynamicid_core.host.encode import Choice, encode
from dynamicid_pack.dynamicid_core.host.miniature import load_miniature
from dynamicid_pack.dynamicid_core.host.models import DynamicID, load_dynamicid
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.nodes.apply import Apply, ApplyAdvanced
from dynamicid_pack.nodes.edit import EditFacialMotion
from dynamicid_pack.nodes.inspect import ActivationMap
from dynamicid_pack.nodes.who_is_who import WhoIsWho

from . import probe, tiny
from .pretend_gpu import CPU, GPU, READ_BACK, TO_CPU, TO_GPU, Event, on_gpu, pretend_gpu
from .test_edit import ASKED
from .test_who import PAIR, image

HALF = torch.bfloat16
STEPS = 3  # more than the layout phase


@pytest.fixture(scope="module")
def dynamicid(tiny_adapter_file: Path) -> DynamicID:
    return load_dynamicid(tiny_adapter_file)


def test_what_a_gpu_refuses_and_waits_for() -> None:
    numbers = torch.arange(6.0).view(2, 3)
    with pretend_gpu() as log:
        x = numbers.to(GPU)
        assert on_gpu(x) and on_gpu(x * 2) and x.device == GPU and not on_gpu(x.cpu())
        assert [event.kind for event in log.events] == [TO_GPU, TO_CPU]
        with pytest.raises(RuntimeError, match="same device"):
            x + numbers
        log.events.clear()
        waits: Sequence[Callable[[], Any]] = (
            x.sum().item, lambda: float(x[0, 0]), lambda: bool(x[0, 0]), lambda: torch.equal(x, x), x.nonzero,
            lambda: x[x > 2], lambda: x.any() and 1,
        )  # fmt: skip
        for wait in waits:
            wait()
        assert [event.kind for event in log.events] == [READ_BACK] * len(waits)
        log.events.clear()
        assert x[[1, 0]].cpu().tolist() == [[3, 4, 5], [0, 1, 2]]
        assert x.tolist() == numbers.tolist()
        assert torch.tensor([1.0], device=GPU).add_(x[0, 1:2]).tolist() == [2]
        assert {event.kind for event in log.events} == {TO_GPU, TO_CPU}


def _sampled(
    dtype: torch.dtype, device: torch.device, patch: Callable[[Any], Any] = lambda model: model
) -> tuple[torch.Tensor, list[list[Event]]]:
    """The result of a run on a device, and the events of each call of the UNet."""
    calls: list[list[Event]] = []
    positive, negative = torch.randn(2, 1, 77, tiny.WIDTH, generator=torch.Generator().manual_seed(5))

    with pretend_gpu(dtype) as log:
        model = tiny.tiny_patcher(dtype=dtype)
        model.load_device = device

        def watch(executor: Any, *args: Any, **kwargs: Any) -> Any:
            before = len(log.events)
            out = executor(*args, **kwargs)
            calls.append(log.events[before:])
            return out

        # before the patch, so that its wrapper comes to lie inside this one
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", watch)
        latent = probe.sample(patch(model), positive, negative, steps=STEPS).cpu()
    assert len(calls) == STEPS
    return latent, calls


def _with_people(dynamicid: DynamicID, gate: bool = True) -> Callable[[Any], Any]:
    people = {f"person_{seed}": Identity(**tiny.identity_tensors(seed)) for seed in range(3)}
    settings: dict[str, Any] = {"weight": 1.0, "start_at": 0.0, "end_at": 1.0, "lora_strength": 1.0}
    settings |= {"layout_scale": 4.0, "layout_steps": 20, "gate_threshold": 0.3, "gate": gate}
    return lambda model: ApplyAdvanced.execute(model, dynamicid, people, **settings).args[0]


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
def test_sampling_waits_once_in_each_call_of_the_unet(dtype: torch.dtype, dynamicid: DynamicID) -> None:
    """For the noise level, before the first layer. What people need comes to the GPU in a run's first call."""
    expected, _ = _sampled(dtype, CPU, _with_people(dynamicid))
    latent, calls = _sampled(dtype, GPU, _with_people(dynamicid))
    assert latent.isfinite().all() and torch.allclose(latent, expected, atol=1e-4)
    _, plain = _sampled(dtype, GPU)
    for number, (events, without) in enumerate(zip(calls, plain, strict=True)):
        ours = [event for event in events if event.ours]
        assert len(events) - len(ours) == len(without), "the host waits for more than without people"
        waits = [(event.kind, event.place.split(":")[0]) for event in ours if event.kind != TO_GPU]
        # which text each row reads is found once a run
        once = [(TO_CPU, "dynamicid_core/host/rows.py")] if number == 0 else []
        assert waits == [(READ_BACK, "dynamicid_core/host/sampling_run.py"), *once]
        assert any(event.kind == TO_GPU for event in ours) == (number == 0)


def test_with_the_gate_off_nothing_of_it_is_copied(dynamicid: DynamicID) -> None:
    """Keys and values of seven layers and the masks of three grids are; the gate's keys and the layout phase aren't."""
    copies = []
    for gate in (True, False):
        _, calls = _sampled(torch.float32, GPU, _with_people(dynamicid, gate))
        in_layers = [event for event in calls[0] if "identity_attention" in event.place]
        copies.append(len([event for event in in_layers if event.kind == TO_GPU]))
    assert copies == [7 * 3 + 3 + 3, 7 * 2 + 3]


@pytest.mark.parametrize("mistake", ["reads back", "mixes devices", pytest.param("copies", marks=pytest.mark.full)])
def test_a_mistake_in_a_layer_is_seen(mistake: str, dynamicid: DynamicID, monkeypatch: pytest.MonkeyPatch) -> None:
    original = identity_attention.saa

    def wrong(out: Any, q: torch.Tensor, *others: Any) -> Any:
        if mistake == "reads back":
            q.sum().item()
        elif mistake == "mixes devices":
            q = q * torch.ones(q.shape[-1])
        else:
            q = q * torch.ones(q.shape[-1]).to(q)
        return original(out, q, *others)

    monkeypatch.setattr(identity_attention, "saa", wrong)
    if mistake == "mixes devices":
        with pytest.raises(RuntimeError, match="same device"):
            _sampled(torch.float32, GPU, _with_people(dynamicid))
        return
    _, calls = _sampled(torch.float32, GPU, _with_people(dynamicid))
    kind = {"reads back": READ_BACK, "copies": TO_GPU}[mistake]
    # this wrapper stands in a test, so that its events count as the host's
    assert len([event for event in calls[-1] if event.kind == kind and not event.ours]) >= 7


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(HALF, marks=pytest.mark.full)], ids=str)
def test_every_step_of_a_graph_runs_on_a_gpu(dtype: torch.dtype) -> None:
    """Encode, edit, apply, sample, look and compare, with the miniature; what leaves a node lies on the CPU."""
    latent = torch.zeros(1, 4, 8, 16)
    with pretend_gpu(dtype) as log:
        miniature = load_miniature()
        identities = [encode(image(PAIR), miniature.dynamicid, Choice("left to right", i)).identity for i in (0, 1)]
        (edited,), _ = EditFacialMotion.execute(identities[0], miniature.dynamicid, miniature.clip, **ASKED).result
        people = {"person_0": edited, "person_1": identities[1]}
        assert all(person.tokens.device == CPU for person in people.values()) and log.operators

        (model,) = Apply.execute(miniature.model, miniature.dynamicid, people, 1.0).args
        text = miniature.clip.encode_from_tokens_scheduled(miniature.clip.tokenize("two people at the beach"))
        noise = comfy.sample.prepare_noise(latent, 7)
        sampled = comfy.sample.sample(
            model, noise, 2, 4.0, "euler", "normal", text, text, latent, disable_pbar=True
        )  # fmt: skip
        assert sampled.device == CPU and sampled.isfinite().all()

        computed = log.operators
        log.events.clear()
        _, masks = ActivationMap.execute(model, text, {"samples": latent}, 0.5).args
        assert log.operators > computed and masks.device == CPU and 0 < masks.max() <= 1
        in_layers = [event for event in log.events if "identity_attention" in event.place or "saa/" in event.place]
        assert {event.kind for event in in_layers} == {TO_GPU}

        report = WhoIsWho.execute(image(PAIR), people, miniature.dynamicid).args[0]
        assert report.count("[1.00]") == 2
