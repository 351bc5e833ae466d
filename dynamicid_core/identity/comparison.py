"""Comparison of images with the people of a scene: which face is whose, how alike they are, who swapped places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..image_inputs import Image
from ..saa.scene import Placement, names_of
from .analyzer import FaceAnalyzer
from .assignment import FaceAssignment, assign_faces, reference_embedding, region_at, report
from .faces import Detection, in_order


@dataclass(frozen=True, eq=False)
class Comparison:
    """One image's faces, from left to right, and whose they are; `report` says it in words."""

    faces: list[Detection]
    assignment: FaceAssignment
    report: str


def compare(scene: Sequence[Placement], images: Sequence[Image], analyzer: FaceAnalyzer) -> list[Comparison]:
    """Compare the faces of each image with the people of a scene.

    Raises:
        ValueError: the scene is empty, or an identity holds no face to compare with.
    """
    if not scene:
        raise ValueError("Who Is Who needs at least one person: connect an identity or placements to people.")
    people = [reference_embedding(placement.identity, i) for i, placement in enumerate(scene)]
    names, regions = names_of(scene), [placement.region for placement in scene]
    comparisons = []
    for image in images:
        height, width = image.shape[:2]
        faces = in_order(analyzer.detect(image), "left to right", (height, width))
        assignment = assign_faces(people, [analyzer.embed(image, face) for face in faces])
        region_of = [region_at(*face.box.to_fractions(width, height).center, regions) for face in faces]
        comparisons.append(Comparison(faces, assignment, report(names, assignment, region_of)))
    return comparisons
