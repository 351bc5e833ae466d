"""Do the tasks of the stages, in this process or in each of Ray's."""

from __future__ import annotations

import contextlib
import json
import sys
from functools import cached_property

from ..expression_classifier import ExpressionClassifier
from ..identity.analyzer import FaceAnalyzer, load_analyzer
from .analysis import FaceRecord, analyze
from .people import Person
from .samples import MakeTokens, select_samples
from .settings import BuildJob
from .sources import Source


class Worker:
    """Networks, loaded when first used. Tasks come as text and results are bytes, so that they can be sent."""

    def __init__(self, job: BuildJob):
        self._job = job

    def run(self, stage: str, task: str) -> bytes:
        """Do a task of a stage: "analyze", see `analysis.analyze`, or "select", see `samples.select_samples`.

        Raises ValueError for an unknown stage, and what the stage raises.
        """
        values, root, settings = json.loads(task), self._job.source, self._job.settings
        if stage == "analyze":
            sources = [Source(**source) for source in values["sources"]]
            return analyze(sources, root, settings, self._analyzer, self._classifier)
        if stage == "select":
            person = Person(values["name"], list(map(FaceRecord.from_json, values["records"])))
            return select_samples(person, root, settings, self._make_tokens if person.records else None)
        raise ValueError(f"Expected analyze or select, got {stage!r}.")

    @cached_property
    def _analyzer(self) -> FaceAnalyzer:
        with contextlib.redirect_stdout(sys.stderr):  # insightface prints what it loads
            return load_analyzer(self._job.face_pack, self._job.provider, self._job.settings.embeds_rgb)

    @cached_property
    def _classifier(self) -> ExpressionClassifier | None:
        file = self._job.expression_model
        return ExpressionClassifier(file, self._job.provider) if file else None

    @cached_property
    def _make_tokens(self) -> MakeTokens | None:
        job = self._job
        if job.adapter is None or job.clip_vision is None:
            return None
        from .tokens import TokenMaker

        return TokenMaker(job.adapter, job.clip_vision, job.device, job.settings.threads)
