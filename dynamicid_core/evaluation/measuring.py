"""The second half of a run: a judge looks at the kept pictures, and every measure gets a value for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from ..identity.assignment import best_assignment
from ..image_inputs import Image
from ..saa.regions import strips
from . import measures
from .bootstrap import Value
from .config import Cell, Config, Person, Sample, Table
from .judge import Judge, SeenFace
from .matching import in_regions, outside
from .store import Store, job_name

Values = dict[str, Value]
"""Of one picture, by measure; a measure that the sample doesn't ask for is not there."""
Row = dict[str, Values]
"""By picture: `<sample>-<seed>-<k>`."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture as the judge sees it: faces, the picture's embedding (d,), size (height, width)."""

    faces: Sequence[SeenFace]
    vector: NDArray[np.floating]
    size: tuple[int, int]


def measure(config: Config, store: Store, judge: Judge) -> dict[str, dict[str, Row]]:
    """All values of a run's pictures: table, row, picture, measure.

    Raises:
        ValueError: a picture has not been drawn, or a reference shows no face.
    """
    eyes = Eyes(judge, config.gallery)
    check_references(config, eyes)
    return {table.name: _table(table, config, store, eyes) for table in config.tables}


def check_references(config: Config, eyes: "Eyes") -> None:
    """Raises ValueError when the judge finds no face in a reference, or in a picture of the gallery."""
    for person in (person for table in config.tables for sample in table.samples for person in sample.people):
        if person.reference is not None:
            eyes.person(person.reference)
    for path in config.gallery:
        eyes.person(path)


class Eyes:
    """A judge that looks at each picture once, and knows the people of a gallery of pictures."""

    def __init__(self, judge: Judge, gallery: Sequence[Path] = ()):
        self.judge, self._gallery = judge, gallery
        self.text = lru_cache(maxsize=None)(judge.text_vector)
        self.seen = lru_cache(maxsize=None)(self._seen)

    def _seen(self, path: Path) -> Seen:
        image = read_image(path)
        return Seen(self.judge.faces(image), self.judge.image_vector(image), (image.shape[0], image.shape[1]))

    def person(self, reference: Path) -> NDArray[np.floating]:
        """(d,) embedding of a reference's largest face. Raises ValueError when the judge finds none."""
        faces = self.seen(reference).faces
        if not faces:
            raise ValueError(f"The judge finds no face in the reference {reference.name}. Take another picture.")
        return max(faces, key=lambda face: face.box.area).embedding

    def others(self, reference: Path) -> list[NDArray[np.floating]]:
        """Embeddings of the gallery's people but for the one of this picture."""
        return [self.person(path) for path in self._gallery if path != reference]


def read_image(path: Path) -> Image:
    """(H, W, 3) uint8 RGB."""
    with Pictures.open(path) as picture:
        return np.array(picture.convert("RGB"))


def picture_values(seen: Seen, sample: Sample, eyes: Eyes) -> Values:
    """What one picture shows of what its sample asks for."""
    values = {"CLIP-T": Value(measures.clip_t(seen.vector, eyes.text(sample.prompt)))}
    people = sample.people
    if not people:
        return values
    values["Count"] = Value(measures.count_share([len(people)], [len(seen.faces)]))
    known = None
    if people[0].reference is not None:
        references = np.stack([eyes.person(person.reference) for person in people if person.reference is not None])
        known = np.array([[measures.face_similarity(who, face.embedding) for face in seen.faces] for who in references])
        known = known.reshape(len(people), len(seen.faces))
    placed = _placed(seen, people)
    faces = [None if i is None else seen.faces[i] for i in (placed if known is None else best_assignment(known))]
    missing = None in faces
    if known is not None:
        like = [float(known[i, j]) for i, j in enumerate(best_assignment(known)) if j is not None]
        values["FaceSim"] = Value(float(np.mean(like)) if like else None, missing)
        values |= _identified(people, faces, eyes)
    values |= _motion(people, faces)
    if known is not None and len(people) > 1:
        rows = [np.full(len(people), np.nan) if face is None else known[:, face] for face in placed]
        there, lost = np.array(rows), None in placed
        values["Assignment"] = Value(measures.assignment_share(there), lost)
        values["Similarity to others"] = Value(measures.other_similarity(there), lost)
        values["Bleed"] = Value(measures.bleed(there), lost)
    return values


def _identified(people: Sequence[Person], faces: Sequence[SeenFace | None], eyes: Eyes) -> Values:
    """Whether each person's face is told from the gallery's people and the picture's others; nothing without either."""
    own: list[float | None] = []
    nearest: list[float] = []
    for person, face in zip(people, faces, strict=True):
        assert person.reference is not None
        strangers = [eyes.person(other.reference) for other in people if other is not person and other.reference]
        strangers += eyes.others(person.reference)
        if not strangers:
            return {}
        own.append(None if face is None else measures.face_similarity(eyes.person(person.reference), face.embedding))
        likeness = [-1.0] if face is None else [measures.face_similarity(who, face.embedding) for who in strangers]
        nearest.append(max(likeness))
    return {"Identified": Value(measures.identified_share(own, nearest), None in own)}


def background_values(path: Path, plain: Path, eyes: Eyes, margin: float) -> Values:
    """What is left of the background of the picture at `plain`, which was drawn without identity.

    Undefined where neither picture shows a face: what is background is then not known.
    """
    seen, before = eyes.seen(path), eyes.seen(plain)
    boxes = [face.box for face in (*seen.faces, *before.faces)]
    if not boxes:
        return dict.fromkeys(("Background difference", "Background PSNR"), Value(None, True))
    one, other, free = read_image(path), read_image(plain), outside(seen.size, boxes, margin)
    missing = not seen.faces
    return {
        "Background difference": Value(measures.background_difference(one, other, free), missing),
        "Background PSNR": Value(measures.background_psnr(one, other, free), missing),
    }


def _table(table: Table, config: Config, store: Store, eyes: Eyes) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for cell in table.cells:
        plain = _plain(table, cell)
        row: Row = {}
        for sample in table.samples:
            paths = list(_pictures(table.name, cell.name, sample, store))
            for path in paths:
                row[path.stem] = picture_values(eyes.seen(path), sample, eyes)
                if plain is not None:
                    before = store.folder / "pictures" / table.name / plain.name / path.name
                    row[path.stem] |= background_values(path, before, eyes, config.margin)
            if len(paths) > 1:
                apart = measures.apartness(np.stack([eyes.seen(path).vector for path in paths]))
                for path, value in zip(paths, apart, strict=True):
                    row[path.stem]["Diversity"] = Value(float(value))
        rows[cell.name] = row
    return rows


def _plain(table: Table, cell: Cell) -> Cell | None:
    """The cell whose pictures a cell's background is compared with; None where there is none, or it is such a one."""
    if "identity" in cell.without:
        return None
    without = [other for other in table.cells if "identity" in other.without]
    return next((other for other in without if other.set == cell.set), without[0] if without else None)


def _pictures(table: str, cell: str, sample: Sample, store: Store) -> Iterator[Path]:
    for seed in sample.seeds:
        found = store.pictures(table, cell, job_name(sample, seed))
        if not found:
            raise ValueError(f"{table}, {cell}: {job_name(sample, seed)} has not been drawn. Start `run` again.")
        yield from found


def _placed(seen: Seen, people: Sequence[Person]) -> list[int | None]:
    """Each person's face by place: in the region given, else in the person's column; of one person the largest."""
    height, width = seen.size
    given = [person.region for person in people if person.region is not None]
    boxes = [face.box.to_fractions(width, height) for face in seen.faces]
    return in_regions(boxes, given or strips(len(people)))


def _motion(people: Sequence[Person], faces: Sequence[SeenFace | None]) -> Values:
    """Expr and Pose over the people of whom an expression, or a pose, is asked."""
    values: Values = {}
    asked = [(person.expression, face) for person, face in zip(people, faces, strict=True) if person.expression]
    if asked:
        shown = [None if face is None else face.expression for _, face in asked]
        values["Expr"] = Value(measures.expression_share([name for name, _ in asked], shown), None in shown)
    posed = [(person.pose, face) for person, face in zip(people, faces, strict=True) if person.pose is not None]
    if posed:
        wanted = [pose for pose, _ in posed]
        poses = [None if face is None else (face.pose[0], face.pose[1]) for _, face in posed]
        values["Pose"] = Value(measures.pose_share(wanted, poses), None in poses)
        values["Pose near"] = Value(measures.pose_near_share(wanted, poses), None in poses)
        off = [measures.pose_error(pose, face) for pose, face in zip(wanted, poses, strict=True) if face is not None]
        values["Pose error"] = Value(float(np.mean(off)) if off else None, None in poses)
    return values


def as_json(values: dict[str, dict[str, Row]]) -> dict[str, Any]:
    """Values as JSON: [value or null, whether a face is missing]."""
    return {
        table: {
            row: {
                picture: {name: [value.value, value.missing] for name, value in said.items()}
                for picture, said in pictures.items()
            }
            for row, pictures in rows.items()
        }
        for table, rows in values.items()
    }
