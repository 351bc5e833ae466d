"""The judge for real images: insightface's buffalo_l, a CLIP model, an expression classifier."""

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from ..box import Box
from ..expression_classifier import ExpressionClassifier
from ..identity.analyzer import FaceAnalyzer, load_analyzer
from ..image_inputs import Image
from .fingerprints import files_fingerprint
from .judges import JudgedFace


class FacePackJudge:
    """A `judges.FaceJudge` by a face pack alone, which names no expression."""

    def __init__(self, faces: FaceAnalyzer, fingerprint: str):
        self._faces, self.fingerprint = faces, fingerprint

    @classmethod
    def load(cls, face_pack: str, provider: str = "auto") -> "FacePackJudge":
        """Load the face pack in a folder. Raises as `load_analyzer`."""
        analyzer = load_analyzer(Path(face_pack), provider, embeds_rgb=False)
        return cls(analyzer, files_fingerprint([Path(face_pack)]))

    def faces(self, image: Image) -> Sequence[JudgedFace]:
        """Return all faces of an image; their poses are not measured."""
        return [
            JudgedFace(face.box, (nan, nan, nan), self._faces.embed(image, face).numpy(), "")
            for face in self._faces.detect(image)
        ]


class ModelsJudge:
    """A `judges.Judge` by models that others trained.

    Args:
        faces: finds and describes faces; its embeddings are taken as it makes them.
        clip, processor: transformers' CLIPModel and CLIPProcessor.
        classifier: names the expression of the face in a box of an image.
    """

    def __init__(
        self, faces: FaceAnalyzer, clip: Any, processor: Any, classifier: ExpressionClassifier, fingerprint: str
    ):
        self._faces, self._clip, self._processor, self._classifier = faces, clip, processor, classifier
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, face_pack: str, clip: str, expressions: str, provider: str = "auto") -> "ModelsJudge":
        """Load the models from files; nothing is downloaded.

        Args:
            face_pack: the folder of buffalo_l.
            clip: a folder with a CLIP model as transformers saves it.
            expressions: an ONNX file, see `ExpressionClassifier`.

        Raises:
            ValueError: a file or folder is missing or does not fit.
            ModuleNotFoundError: a package of the extra training is not installed.
        """
        paths = {"face_pack": Path(face_pack), "clip": Path(clip), "expressions": Path(expressions)}
        for name, path in paths.items():
            if not (path.is_file() if name == "expressions" else path.is_dir()):
                kind = "file" if name == "expressions" else "folder"
                raise ValueError(f"Expected as {name} a {kind} at {path}. Correct the judge's options.")
        try:
            from transformers import CLIPModel, CLIPProcessor

            classifier = ExpressionClassifier(paths["expressions"], "CPU")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error.name} is not installed, which judging images needs: python -m pip install '.[training]' in "
                "the pack's folder."
            ) from error
        network = CLIPModel.from_pretrained(clip, local_files_only=True).eval().requires_grad_(False)
        processor = CLIPProcessor.from_pretrained(clip, local_files_only=True)
        # insightface's own order: embeddings are compared with each other alone
        faces = load_analyzer(paths["face_pack"], provider, embeds_rgb=False)
        return cls(faces, network, processor, classifier, files_fingerprint(list(paths.values())))

    def faces(self, image: Image) -> Sequence[JudgedFace]:
        faces = []
        for detection in self._faces.detect(image):
            face = self._faces.describe(image, detection)
            assert face.box is not None and face.pose is not None and face.embedding is not None
            faces.append(JudgedFace(face.box, face.pose, face.embedding.numpy(), self.expression(image, face.box)))
        return faces

    def expression(self, image: Image, box: Box) -> str:
        """Return one of expression_classifier.CLASSES for the face in a box."""
        return self._classifier(image, box)

    def image_vector(self, image: Image) -> NDArray[np.float32]:
        inputs = self._processor(images=PillowImage.fromarray(image), return_tensors="pt")
        with torch.no_grad():
            pooled = self._clip.vision_model(pixel_values=inputs["pixel_values"]).pooler_output
            return np.asarray(self._clip.visual_projection(pooled)[0].float().numpy())

    def text_vector(self, text: str) -> NDArray[np.float32]:
        length = self._clip.config.text_config.max_position_embeddings
        tokens = self._processor(text=[text], return_tensors="pt", truncation=True, max_length=length)
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        with torch.no_grad():
            pooled = self._clip.text_model(input_ids=ids, attention_mask=mask).pooler_output
            return np.asarray(self._clip.text_projection(pooled)[0].float().numpy())
