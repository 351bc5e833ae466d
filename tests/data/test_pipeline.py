"""From folders of drawn people with known defects to shards, an index and tables."""

import csv
import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import webdataset
from dynamicid_pack.dynamicid_core.data.coverage import coverage_image
from dynamicid_pack.dynamicid_core.data.selection import YAWS, yaw_bin
from dynamicid_pack.dynamicid_core.data.settings import REASONS
from dynamicid_pack.dynamicid_core.imr.landmarks import FRAME, keypoint_image
from dynamicid_pack.dynamicid_core.imr.motion import EXPRESSIONS, face_prompt
from dynamicid_pack.tests.data.conftest import Built
from dynamicid_pack.tests.data.drawn import SETTINGS, built, changed, draw_person
from PIL import Image
from pyarrow import parquet

pytestmark = pytest.mark.train  # a build runs the miniature's networks for seconds


def _index(out: Path) -> list[dict]:
    return parquet.read_table(out / "index.parquet").to_pylist()


def _samples(out: Path) -> dict[str, dict]:
    """What webdataset reads of the shards, decoded, by key."""
    shards = sorted(str(path) for path in out.glob("shard-*.tar"))
    reader = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("rgb8")
    return {sample["__key__"]: sample for sample in reader}


def test_the_defects_and_nothing_else_are_left_out_each_for_its_reason(finished: Built) -> None:
    table = parquet.read_table(finished.out / "dropped.parquet").to_pylist()
    assert {row["source"]: row["reason"] for row in table} == finished.bad
    assert {row["source"] for row in _index(finished.out)} == set(finished.good)
    assert {row["person"] for row in table} == {"anna"}
    assert set(finished.bad.values()) <= set(REASONS)
    with (finished.out / "dropped.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == table
    duplicate = next(row for row in table if row["reason"] == "duplicate")
    assert duplicate["detail"].startswith("of anna/00 ")
    assert finished.summary.images == 15 and finished.summary.people == 3
    assert finished.summary.rejected == Counter(finished.bad.values())


def test_the_shards_load_and_agree_with_the_index(finished: Built) -> None:
    index, samples = _index(finished.out), _samples(finished.out)
    assert [row["key"] for row in index] == sorted(samples)
    for row in index:
        sample = samples[row["key"]]
        assert Path(sample["__url__"]).name == row["shard"]
        assert sample["png"].shape == (SETTINGS.size, SETTINGS.size, 3) and sample["png"].dtype == np.uint8
        assert sample["txt"] == row["prompt"] == face_prompt(row["expression"], row["pitch"], row["yaw"])
        assert row["yaw_bin"] == yaw_bin(row["yaw"])
        written = sample["json"]
        assert written.keys() == row.keys() - {"shard", "key"}
        for name, value in written.items():
            assert row[name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-3)), name
        assert sample["landmarks.npy"].shape == (106, 2) and sample["landmarks.npy"].dtype == np.float32
        keypoints = np.array(Image.open(io.BytesIO(_raw(finished.out, row, "keypoints.png"))))
        assert np.array_equal(keypoints, keypoint_image(sample["landmarks.npy"])) and keypoints.max() == 255
        assert sample["embedding.npy"].dtype == np.float32
        assert np.linalg.norm(sample["embedding.npy"]) == pytest.approx(1, abs=1e-5)
        assert "tokens.npy" not in sample


def _raw(out: Path, row: dict, ending: str) -> bytes:
    with tarfile.open(out / row["shard"]) as tar:
        file = tar.extractfile(f"{row['key']}.{ending}")
        assert file is not None
        return file.read()


def test_a_person_lies_in_one_shard_and_nothing_tells_of_time_or_user(finished: Built) -> None:
    shards = {row["person"]: {other["shard"] for other in _index(finished.out) if other["person"] == row["person"]}
              for row in _index(finished.out)}  # fmt: skip
    assert all(len(names) == 1 for names in shards.values())
    assert len(set.union(*shards.values())) == 3  # of 8 pictures each: two people of 5 don't fit into one
    for shard in finished.out.glob("shard-*.tar"):
        with tarfile.open(shard) as tar:
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_what_is_written_is_true_of_the_drawn_faces(finished: Built) -> None:
    samples = _samples(finished.out)
    for row in _index(finished.out):
        truth = finished.good[row["source"]]
        face, (x, y, side) = truth.faces[0], row["square"]
        assert row["expression"] == face.motion.expression and row["expression_from"] == "name"
        assert abs(row["yaw"] - face.pose[1]) < 8 and abs(row["pitch"] - face.pose[0]) < 10
        assert 0 <= x <= truth.image.shape[1] - side and 0 <= y <= truth.image.shape[0] - side
        true = (face.landmarks - [x, y]) * FRAME / side
        wide = float(np.ptp(true[:, 0]))
        errors = np.linalg.norm(samples[row["key"]]["landmarks.npy"] - true, axis=1)
        assert errors.mean() < 0.06 * wide, (row["source"], errors.mean() / wide)
        crop = Image.fromarray(truth.image).crop((x, y, x + side, y + side)).resize((128, 128))
        assert np.abs(np.array(crop, int) - samples[row["key"]]["png"]).mean() < 3


def test_embeddings_tell_the_people_apart(finished: Built) -> None:
    index, samples = _index(finished.out), _samples(finished.out)
    faces = np.array([samples[row["key"]]["embedding.npy"] for row in index])
    same = np.equal.outer(*[np.array([row["person"] for row in index])] * 2)
    assert (faces @ faces.T)[same].min() > 0.75 > (faces @ faces.T)[~same].max()


def test_the_coverage_is_the_index_counted(finished: Built) -> None:
    counts = Counter((row["expression"], row["yaw_bin"]) for row in _index(finished.out))
    again = coverage_image(counts, "15 pictures of 3 people")
    picture = Image.open(finished.out / "coverage.png").convert("RGB")
    assert picture.tobytes() == again.tobytes()
    filled = [
        (expression, yaw)
        for i, expression in enumerate(EXPRESSIONS)
        for j, yaw in enumerate(YAWS)
        if picture.getpixel((104 + 112 * j + 4, 72 + 48 * i + 4)) != (244, 244, 244)
    ]
    assert set(filled) == set(counts) and len(filled) > 5


@pytest.mark.train
def test_unsorted_pictures_are_sorted_into_the_true_people(tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    true = {}
    for number in range(3):
        for i, (name, _) in enumerate(draw_person(tmp_path / str(number), number, 5).items()):
            moved = f"{(7 * (5 * number + i)) % 15:02d} {name}"  # so that names say nothing of the person
            (tmp_path / str(number) / name).rename(mixed / moved)
            true[moved] = number
    (mixed / "letter.png").write_text("no picture")
    summary = built(mixed, tmp_path / "set", changed(unsorted=True))
    assert summary.people == 3 and summary.rejected == {"not a picture": 1}
    index = _index(tmp_path / "set")
    assert {row["source"] for row in index} == set(true)
    pairs = {(row["person"], true[row["source"]]) for row in index}
    assert len(pairs) == len({person for person, _ in pairs}) == len({number for _, number in pairs}) == 3
    assert index[0]["person"] == "person-000000" and index[0]["source"].startswith("00 ")


def test_of_many_pictures_few_are_kept_and_people_with_too_few_are_left_out(finished: Built, tmp_path: Path) -> None:
    source = tmp_path / "source"
    draw_person(source / "anna", 0, 6)
    draw_person(source / "bert", 1, 2)
    summary = built(source, tmp_path / "set", changed(per_person=4, min_images=3))
    assert summary.rejected == {"too few": 2, "not chosen": 2}
    index = _index(tmp_path / "set")
    assert len(index) == 4 and {row["person"] for row in index} == {"anna"}
    assert len({row["expression"] for row in index}) + len({row["yaw_bin"] for row in index}) >= 7
