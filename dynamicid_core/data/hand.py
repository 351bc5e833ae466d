"""One who does the stages' work: in this process, or in each of Ray's."""

import contextlib
import json
import sys
from functools import cached_property
from pathlib import Path

from ..identity.analyzer import FaceAnalyzer, load_analyzer
from .examine import examine, seen_from
from .expression import Classifier
from .settings import Job
from .settle import settle
from .sources import Source
from .tokens import TokenMaker


class Hand:
    """Holds the networks, loaded when first used. Work comes as text and goes as bytes, so that it can be sent."""

    def __init__(self, job: Job):
        self._job = job
        self._root = Path(job.source)

    @classmethod
    def from_json(cls, text: str) -> "Hand":
        return cls(Job.from_json(text))

    def work(self, stage: str, task: str) -> bytes:
        """What `examine` or `settle` writes, for a task as text.

        Raises ValueError for an unknown stage, and what the stage raises.
        """
        known, settings = json.loads(task), self._job.settings
        if stage == "examine":
            sources = [Source(**values) for values in known["sources"]]
            return examine(sources, self._root, settings, self._analyser, self._classifier)
        if stage == "settle":
            seen = [seen_from(values) for values in known["seen"]]
            return settle(known["person"], seen, self._root, settings, self._tokens if seen else None)
        raise ValueError(f"Expected examine or settle, got {stage!r}.")

    @cached_property
    def _analyser(self) -> FaceAnalyzer:
        with contextlib.redirect_stdout(sys.stderr):  # insightface prints what it loads
            return load_analyzer(Path(self._job.face_pack), self._job.provider, self._job.settings.embeds_rgb)

    @cached_property
    def _classifier(self) -> Classifier | None:
        file = self._job.expression_model
        return Classifier(Path(file), self._job.provider) if file else None

    @cached_property
    def _tokens(self) -> TokenMaker | None:
        job = self._job
        if not job.adapter:
            return None
        return TokenMaker(Path(job.adapter), Path(job.clip_vision), job.device, job.settings.threads)
