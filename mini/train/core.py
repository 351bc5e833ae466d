"""What training uses of the pack's core, whichever way the checkout is imported.

The host and the tests import it as one package; `python -m mini`, started in its root, knows `mini` and
`dynamicid_core` as two.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__ != "mini.train":
    from ...dynamicid_core.box import Box
    from ...dynamicid_core.evaluation.judges import CachedJudge, JudgedFace, read_image
    from ...dynamicid_core.evaluation.report import RESULTS, markdown, read_results
    from ...dynamicid_core.expression_classifier import CLASSES as EXPRESSION_CLASSES
    from ...dynamicid_core.expression_classifier import ExpressionClassifier
    from ...dynamicid_core.files import atomic_path, sha256_of_file, write_atomically
    from ...dynamicid_core.identity.faces import Face
    from ...dynamicid_core.image_grid import image_grid
    from ...dynamicid_core.image_inputs import CLASSIFIER_SIDE, classifier_input, clip_input, normalized_gray
    from ...dynamicid_core.imr.landmarks import FRAME
    from ...dynamicid_core.imr.motion import turnable
    from ...dynamicid_core.tensor_file import write_tensors
else:
    from dynamicid_core.box import Box
    from dynamicid_core.evaluation.judges import CachedJudge, JudgedFace, read_image
    from dynamicid_core.evaluation.report import RESULTS, markdown, read_results
    from dynamicid_core.expression_classifier import CLASSES as EXPRESSION_CLASSES
    from dynamicid_core.expression_classifier import ExpressionClassifier
    from dynamicid_core.files import atomic_path, sha256_of_file, write_atomically
    from dynamicid_core.identity.faces import Face
    from dynamicid_core.image_grid import image_grid
    from dynamicid_core.image_inputs import CLASSIFIER_SIDE, classifier_input, clip_input, normalized_gray
    from dynamicid_core.imr.landmarks import FRAME
    from dynamicid_core.imr.motion import turnable
    from dynamicid_core.tensor_file import write_tensors

__all__ = [
    "CLASSIFIER_SIDE",
    "EXPRESSION_CLASSES",
    "FRAME",
    "RESULTS",
    "Box",
    "CachedJudge",
    "ExpressionClassifier",
    "Face",
    "JudgedFace",
    "atomic_path",
    "classifier_input",
    "clip_input",
    "image_grid",
    "markdown",
    "normalized_gray",
    "read_image",
    "read_results",
    "sha256_of_file",
    "turnable",
    "write_atomically",
    "write_tensors",
]
