"""The second half of a run: a judge judges the kept images, and every measure gets a value for each."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..identity.assignment import best_assignment, faces_in_regions
from ..saa.regions import Region, strips
from . import identity_measures, measures
from .bootstrap import Value
from .config import Benchmark, EvaluationConfig, SampleSpec, TargetPerson, Variant
from .judges import CachedFaces, CachedJudge, FaceJudge, Judge, JudgedFace, JudgedImage, read_image
from .run_folder import Job, RunFolder
from .spent import has_redraw, unet_calls

Values = dict[str, Value]
"""Of one image, by measure; a measure that the sample doesn't ask for is not there."""
Row = dict[str, Values]
"""By image: `<sample>-<seed>-<k>`."""


def measure(
    config: EvaluationConfig, folder: RunFolder, judge: Judge, node_judge: FaceJudge | None = None
) -> dict[str, dict[str, Row]]:
    """Return all values of a run's images: benchmark -> variant -> image -> measure.

    Args:
        node_judge: made from the configuration's.

    Raises ValueError when an image has not been generated, a reference shows no face, or two variants have the same
    images.
    """
    cached = CachedJudge(judge, config.gallery)
    cached_node = None if node_judge is None else CachedFaces(node_judge)
    check_references(config, cached)
    for benchmark in config.benchmarks:
        check_variants(benchmark, folder)
    return {
        benchmark.name: {
            variant.name: _row(benchmark, variant, folder, cached, cached_node, config.margin)
            for variant in benchmark.variants
        }
        for benchmark in config.benchmarks
    }


def check_references(config: EvaluationConfig, judge: CachedJudge) -> None:
    """Raise ValueError when the judge finds no face in a reference, or in an image of the gallery."""
    for path in (*(person.reference for person in config.people), *config.gallery):
        if path is not None:
            judge.person(path)


def check_variants(benchmark: Benchmark, folder: RunFolder) -> None:
    """Raise ValueError when two variants' graphs differ and all their images are equal: one measures nothing."""
    known: dict[bytes, tuple[Variant, list[str]]] = {}
    for variant in benchmark.variants:
        pixels, graphs = sha256(), []
        for sample in benchmark.samples:
            for path in _images(benchmark, variant, sample, folder):
                pixels.update(read_image(path).tobytes())
            graphs += [folder.digest(Job.of(benchmark, variant, sample, seed)) for seed in sample.seeds]
        other, others_graphs = known.setdefault(pixels.digest(), (variant, graphs))
        if graphs != others_graphs and not (variant.may_equal or other.may_equal):
            raise ValueError(
                f"{benchmark.name}: {variant.name!r} and {other.name!r} have the same images, so what they override "
                "has no effect. A layout phase, for one, has none in a run that starts below its noise level: raise "
                "layout_steps, or take a scheduler that starts higher."
            )


def _row(
    benchmark: Benchmark,
    variant: Variant,
    folder: RunFolder,
    judge: CachedJudge,
    node_judge: CachedFaces | None,
    margin: float,
) -> Row:
    plain = _plain(benchmark, variant)
    row: Row = {}
    for sample in benchmark.samples:
        paths = list(_images(benchmark, variant, sample, folder))
        for path in paths:
            row[path.stem] = image_values(judge.image(path), sample, judge)
            if benchmark.alike_from is not None:
                row[path.stem] |= alike_values(path, sample, judge, node_judge, benchmark.alike_from)
            if plain is not None:
                before = path.parents[1] / plain.name / path.name
                row[path.stem] |= background_values(path, before, judge, margin)
        for seed in sample.seeds:
            row_of_job = Job.of(benchmark, variant, sample, seed)
            record = folder.record(row_of_job)
            if record is not None and has_redraw(record.graph):
                calls = unet_calls(record.graph, record.texts)
                for path in folder.images(row_of_job):
                    row[path.stem]["UNet calls"] = Value(calls and calls / len(record.pictures))
        if len(paths) > 1:
            diversity = measures.diversity(np.stack([judge.image(path).vector for path in paths]))
            for path, value in zip(paths, diversity, strict=True):
                row[path.stem]["Diversity"] = Value(float(value))
    return row


def _plain(benchmark: Benchmark, variant: Variant) -> Variant | None:
    """Return the variant whose backgrounds this one's are compared with; None if it ablates identity, or none does."""
    if "identity" in variant.ablate:
        return None
    plain = [other for other in benchmark.variants if "identity" in other.ablate]
    return next((other for other in plain if other.overrides == variant.overrides), plain[0] if plain else None)


def _images(benchmark: Benchmark, variant: Variant, sample: SampleSpec, folder: RunFolder) -> Iterator[Path]:
    for seed in sample.seeds:
        job = Job.of(benchmark, variant, sample, seed)
        images = folder.images(job)
        if not images:
            raise ValueError(f"{job.benchmark}, {job.variant}: {job.name} has not been drawn. Start `run` again.")
        yield from images


def image_values(image: JudgedImage, sample: SampleSpec, judge: CachedJudge) -> Values:
    """Return what one image shows of what its sample asks for."""
    values = {"CLIP-T": Value(measures.clip_t(image.vector, judge.text(sample.prompt)))}
    people = sample.people
    if not people:
        return values
    values["Count"] = Value(measures.count_share([len(people)], [len(image.faces)]))
    placed = _placed(image, people)
    references = [judge.person(person.reference) for person in people if person.reference is not None]
    if not references:
        return values | _motion(people, _faces(image, placed))
    similarity = _cosines(references, image.faces)
    faces = _faces(image, best_assignment(similarity))
    values["FaceSim"] = Value(identity_measures.matched_similarity(similarity), None in faces)
    values["Multi-ID similarity"] = Value(identity_measures.multi_id_similarity(similarity), None in faces)
    if len(people) > 1 or len(image.faces) > 1:
        values["ID-Conf"] = Value(identity_measures.id_conf(similarity), None in faces)
    if sample.ground_truth is not None:
        values |= _against_truth(image, references, judge.image(sample.ground_truth), None in faces)
    values |= _identified(people, faces, judge) | _motion(people, faces) | _motion_copy_paste(people, faces, judge)
    if len(people) > 1:
        absent = np.full(len(people), np.nan)
        # (regions, people)
        by_region = np.array([absent if face is None else similarity[:, face] for face in placed])
        missing = None in placed
        values["Assignment"] = Value(measures.assignment_share(by_region), missing)
        values["Similarity to others"] = Value(measures.other_similarity(by_region), missing)
        values["Bleed"] = Value(measures.bleed(by_region), missing)
    return values


def alike_values(
    path: Path, sample: SampleSpec, judge: CachedJudge, node_judge: CachedFaces | None, alike_from: float
) -> Values:
    """Return whether everybody in the image at `path` is alike, by the judge and by whom nodes asked."""
    references = [person.reference for person in sample.people if person.reference is not None]
    values: Values = {}
    for name, by in (("All alike", judge), ("All alike (node)", node_judge)):
        if references and by is not None:
            similarity = _cosines([by.person(reference) for reference in references], by.faces(path))
            faces = best_assignment(similarity)
            own = [None if face is None else float(similarity[person, face]) for person, face in enumerate(faces)]
            values[name] = Value(measures.all_alike_share([own], alike_from), None in own)
    return values


def _cosines(embeddings: Sequence[NDArray[np.floating]], faces: Sequence[JudgedFace]) -> NDArray[np.float64]:
    """Return the cosines (embeddings, faces)."""
    cosines = [[measures.face_similarity(one, face.embedding) for face in faces] for one in embeddings]
    return np.array(cosines, np.float64).reshape(len(embeddings), len(faces))


def _against_truth(
    image: JudgedImage, references: Sequence[NDArray[np.floating]], truth: JudgedImage, missing: bool
) -> Values:
    """Return Sim(Ref), Sim(GT) and Copy-Paste: faces against a true picture's, undefined where either shows none.

    As in MultiID-Bench, each face has the reference and the true face that are assigned to it, each by itself.
    """
    truths = [face.embedding for face in truth.faces]
    to_references, to_truths = _cosines(references, image.faces), _cosines(truths, image.faces)
    reference_of, truth_of = (
        {face: i for i, face in enumerate(best_assignment(s))} for s in (to_references, to_truths)
    )
    scores = [
        identity_measures.copy_paste(face.embedding, truths[truth_of[i]], references[reference_of[i]])
        for i, face in enumerate(image.faces)
        if i in reference_of and i in truth_of
    ]
    return {
        "Sim(Ref)": Value(identity_measures.matched_similarity(to_references), missing),
        "Sim(GT)": Value(identity_measures.matched_similarity(to_truths), missing),
        "Copy-Paste": Value(_mean(scores), missing),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of those that are defined; None when none is."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _faces(image: JudgedImage, indices: Sequence[int | None]) -> list[JudgedFace | None]:
    return [None if index is None else image.faces[index] for index in indices]


def _placed(image: JudgedImage, people: Sequence[TargetPerson]) -> list[int | None]:
    """Return each person's face by place: in the region that is given, else in the person's column."""
    height, width = image.size
    regions = [person.region for person in people if person.region is not None] or strips(len(people))
    boxes = [face.box.to_fractions(width, height) for face in image.faces]
    return faces_in_regions(boxes, [Region(box=region) for region in regions])


def _identified(people: Sequence[TargetPerson], faces: Sequence[JudgedFace | None], judge: CachedJudge) -> Values:
    """Return Identified among the gallery's people and the sample's others; nothing when there is nobody else."""
    own: list[float | None] = []
    nearest: list[float] = []
    for person, face in zip(people, faces, strict=True):
        assert person.reference is not None
        strangers = [judge.person(other.reference) for other in people if other is not person and other.reference]
        strangers += judge.others(person.reference)
        if not strangers:
            return {}
        if face is None:
            own.append(None)
            nearest.append(-1.0)
        else:
            own.append(measures.face_similarity(judge.person(person.reference), face.embedding))
            nearest.append(max(measures.face_similarity(one, face.embedding) for one in strangers))
    return {"Identified": Value(measures.identified_share(own, nearest), None in own)}


def _motion(people: Sequence[TargetPerson], faces: Sequence[JudgedFace | None]) -> Values:
    """Return Expr, and Pose and its kin, over the people of whom an expression, or a pose, is requested."""
    values: Values = {}
    pairs = list(zip(people, faces, strict=True))
    expressions = [(person.expression, face) for person, face in pairs if person.expression]
    if expressions:
        names = [name for name, _ in expressions]
        labels = [None if face is None else face.expression for _, face in expressions]
        values["Expr"] = Value(measures.expression_share(names, labels), None in labels)
    poses = [(person.pose, face) for person, face in pairs if person.pose is not None]
    if poses:
        requested = [pose for pose, _ in poses]
        detected = [None if face is None else face.pose[:2] for _, face in poses]
        missing = None in detected
        values["Pose"] = Value(measures.pose_share(requested, detected), missing)
        values["Pose near"] = Value(measures.pose_near_share(requested, detected), missing)
        errors = [measures.pose_error(pose, face) for pose, face in zip(requested, detected, strict=True) if face]
        values["Pose error"] = Value(_mean(errors), missing)
    return values


def _motion_copy_paste(
    people: Sequence[TargetPerson], faces: Sequence[JudgedFace | None], judge: CachedJudge
) -> Values:
    """Return Motion Copy-Paste over the people of whom another motion than their reference's is requested."""
    poses: list[float | None] = []
    expressions: list[float | None] = []
    for person, face in zip(people, faces, strict=True):
        assert person.reference is not None
        own = judge.face(person.reference)
        if person.pose is not None and not identity_measures.is_own_pose(person.pose, own.pose[:2]):
            pose = (person.pose, own.pose[:2])
            poses.append(None if face is None else identity_measures.pose_copy_paste(*pose, face.pose[:2]))
        if person.expression is not None and person.expression != own.expression:
            words = (person.expression, own.expression)
            expressions.append(
                None if face is None else identity_measures.expression_copy_paste(*words, face.expression)
            )
    scores = {"Motion Copy-Paste (pose)": poses, "Motion Copy-Paste (expression)": expressions}
    return {name: Value(_mean(values), None in values) for name, values in scores.items() if values}


def background_values(path: Path, plain: Path, judge: CachedJudge, margin: float) -> Values:
    """Return what is left of the background of the image at `plain`, which was generated without identity.

    Undefined where neither image shows a face: what is background is then not known.
    """
    image, before = judge.image(path), judge.image(plain)
    boxes = [face.box for face in (*image.faces, *before.faces)]
    if not boxes:
        return dict.fromkeys(("Background difference", "Background PSNR"), Value(None, True))
    one, other = read_image(path), read_image(plain)
    mask: NDArray[np.bool_] = measures.background_mask(image.size, boxes, margin)
    return {
        "Background difference": Value(measures.background_difference(one, other, mask), not image.faces),
        "Background PSNR": Value(measures.background_psnr(one, other, mask), not image.faces),
    }
