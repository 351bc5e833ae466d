"""The miniature's experiments: what is asked, of whom."""

import json
from pathlib import Path

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.evaluation.config import EvaluationConfig, load_config
from dynamicid_pack.dynamicid_core.evaluation.judges import CachedJudge, Judge
from dynamicid_pack.mini.train.experiments import (
    CONTRASTIVE,
    FEW,
    GALLERY,
    GATED,
    PLAIN_GATED,
    PLAIN_UNGATED,
    UNGATED,
    UNGATED_IMR,
    write_experiments,
)
from dynamicid_pack.mini.train.motion_experiments import MOTIONS
from dynamicid_pack.mini.world.caption import parse_caption
from dynamicid_pack.mini.world.world import HELD_OUT_PAIRS

pytestmark = pytest.mark.train  # references of hundreds of people are drawn


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EvaluationConfig:
    folder = tmp_path_factory.mktemp("experiments")
    trained = [folder / name for name in (UNGATED, GATED, CONTRASTIVE, UNGATED_IMR, PLAIN_UNGATED, PLAIN_GATED)]
    for path in trained:
        path.write_bytes(b"")
    return load_config(write_experiments(folder / "written", 6, tuple(trained)))


def test_prompts_leave_faces_to_the_people(config: EvaluationConfig) -> None:
    for sample in (sample for benchmark in config.benchmarks for sample in benchmark.samples):
        looks = parse_caption(sample.prompt).people
        assert len(looks) == len(sample.people)
        assert not any(look.expression or look.view or look.tilt for look in looks) and all(
            look.garment for look in looks
        )


def test_people_of_a_picture_are_different_ones(config: EvaluationConfig) -> None:
    assert len(set(config.gallery)) == GALLERY - 1
    asked = {p.reference.name for t in config.benchmarks for s in t.samples for p in s.people if p.reference}
    assert not {path.name.split("-")[1] for path in config.gallery} & {name.split("-")[1] for name in asked}
    for sample in (sample for benchmark in config.benchmarks for sample in benchmark.samples):
        assert len({person.reference for person in sample.people}) == len(sample.people)


def test_what_is_asked_of_a_face_is_what_the_node_is_told(config: EvaluationConfig) -> None:
    benchmarks = {benchmark.name: benchmark for benchmark in config.benchmarks}
    edited = [benchmarks[name] for name in ("one person, edited", "one person, pairs never seen", "two people, edited")]
    for sample in (sample for benchmark in edited for sample in benchmark.samples):
        for i, person in enumerate(sample.people):
            told = sample.overrides[f"edit_{i}"]
            assert (told["expression"], told["yaw"]) == (person.expression, person.yaw)
    never = {(p.expression, p.yaw) for sample in edited[1].samples for p in sample.people}
    seen = {(p.expression, p.yaw) for benchmark in (edited[0], edited[2]) for s in benchmark.samples for p in s.people}
    assert never <= set(HELD_OUT_PAIRS) and not seen & set(HELD_OUT_PAIRS)


def test_a_true_picture_shows_the_people_in_the_requested_motion(config: EvaluationConfig, judge: Judge) -> None:
    """By the judge: likeness to each one's own reference, expressions and turns, from left to right."""
    cached = CachedJudge(judge)
    for benchmark in (benchmark for benchmark in config.benchmarks if benchmark.name not in MOTIONS):
        for sample in benchmark.samples[:2]:
            assert sample.ground_truth is not None
            faces = sorted(cached.image(sample.ground_truth).faces, key=lambda face: face.box.x0)
            assert len(faces) == len(sample.people)
            for person, face in zip(sample.people, faces, strict=True):
                assert person.reference is not None
                assert float(np.dot(face.embedding, cached.person(person.reference))) > 0.7
                if person.pose is not None:
                    assert face.expression == person.expression
                    assert abs(face.pose[1] - person.pose[1]) < 10
                else:
                    own = cached.face(person.reference)
                    assert face.expression != own.expression or abs(face.pose[1] - own.pose[1]) > 10


def test_faces_are_redrawn_by_a_prompt_for_one_person_and_by_nothing_of_them_where_they_are_strangers(
    config: EvaluationConfig,
) -> None:
    benchmarks = {benchmark.name: benchmark for benchmark in config.benchmarks}
    names = ("two people", "three people", "two people, edited")
    for plain, redrawn in ((benchmarks[name], benchmarks[f"{name}, redrawn"]) for name in names):
        for before, sample in zip(plain.samples, redrawn.samples, strict=True):
            assert (sample.prompt, sample.seeds, sample.people) == (before.prompt, before.seeds, before.people)
            one = parse_caption(sample.overrides["one"]["text"])
            assert len(one.people) == 1 and one.place == parse_caption(sample.prompt).place
            assert before.overrides.items() <= sample.overrides.items()
        graph = json.loads(redrawn.template.read_text())
        assert graph["redraw"]["inputs"]["model"] == ["mini", 0] and graph["save"]["inputs"]["images"] == ["redraw", 0]
        assert graph["sampler"]["inputs"]["model"] == ["apply", 0]
        assert redrawn.variants[0].overrides == {"redraw": {"denoise": 0.0}}
        assert redrawn.alike_from == 0.6 and plain.alike_from is None
    assert config.node_judge is not None and Path(config.node_judge.options["face_pack"]).is_dir()
    strangers = json.loads(benchmarks["people put into pictures"].template.read_text())
    assert strangers["sampler"]["inputs"]["model"] == ["mini", 0] and "apply" not in strangers


def test_rows_that_need_a_training_are_there_when_it_is(config: EvaluationConfig, tmp_path: Path) -> None:
    rows = {variant.name for benchmark in config.benchmarks for variant in benchmark.variants}
    without = load_config(write_experiments(tmp_path, 1, ()))
    more = rows - {variant.name for benchmark in without.benchmarks for variant in benchmark.variants}
    assert {name for name in more if not name.startswith("gate o")} == {
        "plain attention", "plain attention, masked", "plain attention, without IMR", "with the contrastive term",
        "its twin with the gate", "its twin with the gate, masked",
    }  # fmt: skip
    ways = ("", ", whole LoRA", ", LoRA at half strength", ", whole LoRA but for the middle block", ", no regions")
    assert {name for name in more if name.startswith("gate o")} == {
        f"gate {gate}{way}" for gate in ("on", "off") for way in ways
    }
    names = {benchmark.name for benchmark in config.benchmarks} - {benchmark.name for benchmark in without.benchmarks}
    assert {name for name in names if name.endswith("plain loss")} == {
        "one person, plain loss",
        "two people, plain loss",
    }


def test_only_some_benchmarks_have_all_their_images(tmp_path: Path) -> None:
    """Those that settle a choice have fewer, however many are asked for."""
    config = load_config(write_experiments(tmp_path, FEW + 1, (), ("one person", "one person, turned by yaw")))
    assert [len(benchmark.samples) for benchmark in config.benchmarks] == [FEW + 1, FEW]


def test_benchmarks_are_chosen_by_name(config: EvaluationConfig, tmp_path: Path) -> None:
    names = [benchmark.name for benchmark in config.benchmarks]
    trained = tuple(tmp_path / name for name in (UNGATED, PLAIN_UNGATED, PLAIN_GATED))
    for path in trained:
        path.write_bytes(b"")
    chosen = (names[3], names[-1])
    written = load_config(write_experiments(tmp_path / "chosen", 1, trained, chosen))
    assert tuple(benchmark.name for benchmark in written.benchmarks) == chosen
    with pytest.raises(ValueError, match=r"expected benchmarks of 'one person', .*, got 'four people'"):
        write_experiments(tmp_path / "chosen", 1, trained, ("one person", "four people"))


def test_another_seed_draws_other_samples_of_the_same_people(tmp_path: Path) -> None:
    one, other = (load_config(write_experiments(tmp_path / str(n), 3, (), ("two people",), n)) for n in (0, 1))
    (first,), (second,) = one.benchmarks, other.benchmarks
    assert not {s.seeds for s in first.samples} & {s.seeds for s in second.samples}
    assert {s.prompt for s in first.samples} != {s.prompt for s in second.samples}
    assert [path.read_bytes() for path in one.gallery] == [path.read_bytes() for path in other.gallery]
