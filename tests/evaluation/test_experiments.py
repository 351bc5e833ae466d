"""The miniature's experiments: what is asked, of whom."""

from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.evaluation.config import Config
from dynamicid_pack.dynamicid_core.evaluation.config_file import read_config
from dynamicid_pack.mini.train.experiments import CONTRASTIVE, GALLERY, UNGATED, write_experiments
from dynamicid_pack.mini.world.caption import parse_caption
from dynamicid_pack.mini.world.world import HELD_OUT_PAIRS


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("experiments")
    trained = [folder / UNGATED, folder / CONTRASTIVE]
    for path in trained:
        path.write_bytes(b"")
    return read_config(write_experiments(folder / "written", 6, tuple(trained)))


def test_prompts_leave_faces_to_the_people(config: Config) -> None:
    for sample in (sample for table in config.tables for sample in table.samples):
        looks = parse_caption(sample.prompt).people
        assert len(looks) == len(sample.people)
        assert not any(look.expression or look.view or look.tilt for look in looks) and all(
            look.garment for look in looks
        )


def test_people_of_a_picture_are_different_ones(config: Config) -> None:
    assert len(set(config.gallery)) == GALLERY - 1
    asked = {p.reference.name for t in config.tables for s in t.samples for p in s.people if p.reference}
    assert not {path.name.split("-")[1] for path in config.gallery} & {name.split("-")[1] for name in asked}
    for sample in (sample for table in config.tables for sample in table.samples):
        assert len({person.reference for person in sample.people}) == len(sample.people)


def test_what_is_asked_of_a_face_is_what_the_node_is_told(config: Config) -> None:
    tables = {table.name: table for table in config.tables}
    edited = [tables[name] for name in ("one person, edited", "one person, pairs never seen", "two people, edited")]
    for sample in (sample for table in edited for sample in table.samples):
        for i, person in enumerate(sample.people):
            told = sample.set[f"edit_{i}"]
            assert (told["expression"], told["yaw"]) == (person.expression, person.yaw)
    never = {(p.expression, p.yaw) for sample in edited[1].samples for p in sample.people}
    seen = {(p.expression, p.yaw) for table in (edited[0], edited[2]) for s in table.samples for p in s.people}
    assert never <= set(HELD_OUT_PAIRS) and not seen & set(HELD_OUT_PAIRS)


def test_rows_that_need_a_training_are_there_when_it_is(config: Config, tmp_path: Path) -> None:
    rows = {cell.name for table in config.tables for cell in table.cells}
    without = read_config(write_experiments(tmp_path, 1, ()))
    assert rows - {cell.name for table in without.tables for cell in table.cells} == {
        "plain attention", "plain attention, masked", "with the contrastive term",
    }  # fmt: skip
