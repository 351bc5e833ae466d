"""What Animate Motion asks for: the motion of each frame, from keyframes and driving pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..identity.faces import Face
from ..imr.keyframes import EASINGS, Keyframes, in_each_frame, parse_keyframes
from ..imr.motion import FacialMotion
from ..imr.motion_text import written_motion
from .encode import NoFaceError, face_of
from .models import DynamicID


@dataclass(frozen=True, eq=False)
class AnimationRequest:
    """The motions that Animate Motion is to make; fields are named as the node's inputs.

    Attributes:
        keyframes: see `parse_keyframes`.
        frames: how many, 1 or more.
        easing: one of EASINGS.
        driving_strength: how far keypoints move towards the driving faces', 0 to 1.
        driving_images: (n, H, W, 3) in [0, 1]; the largest face of the i-th drives frame i.
    """

    keyframes: str
    frames: int
    easing: str
    driving_strength: float = 1.0
    driving_images: Tensor | None = field(default=None, repr=False)

    def targets(self, face: Face | None, dynamicid: DynamicID) -> tuple[list[FacialMotion], list[str]]:
        """Return the motion of each frame, and what the user should know.

        Raises:
            ValueError: keyframes that are none, no driving picture shows a face, or neither is given.
        """
        keyframes = parse_keyframes(self.keyframes)
        if not keyframes and self.driving_images is None:
            raise ValueError("Nothing moves: write keyframes, as in 0: neutral; 8: happy, or connect driving_images.")
        drivers, notes = self._drivers(dynamicid)
        notes += self._beyond(keyframes)
        specs = in_each_frame(keyframes, self.frames, EASINGS[self.easing])
        if (any(spec.turns for spec in specs) or any(drivers)) and (face is None or face.points68 is None):
            notes.append("this identity remembers no 3-D points: the words alone tell the pose. Encode it again.")
        motions = [
            written_motion(face, spec, driver=driver, strength=self.driving_strength)
            for spec, driver in zip(specs, drivers, strict=True)
        ]
        return motions, notes

    def _drivers(self, dynamicid: DynamicID) -> tuple[list[Face | None], list[str]]:
        """Return the face that drives each frame, and what the user should know."""
        images = self.driving_images
        if images is None:
            return [None] * self.frames, []
        faces: list[Face | None] = []
        for image in images[: self.frames]:
            try:
                faces.append(face_of(image[None], dynamicid.faces)[0])
            except NoFaceError:
                faces.append(None)
        first = next((face for face in faces if face is not None), None)
        if first is None:
            raise ValueError("driving_images: no face was found in any picture. Connect pictures of one larger face.")
        notes = []
        if faceless := [number for number, face in enumerate(faces) if face is None]:
            listed = ", ".join(map(str, faceless[:8])) + (", ..." if len(faceless) > 8 else "")
            notes.append(f"driving_images shows no face at {listed} (from 0): the one before it drives there.")
        if len(images) != self.frames:
            rest = "the last one stays" if len(images) < self.frames else "the others are not used"
            notes.append(f"{len(images)} driving_images for {self.frames} frames: {rest}.")
        driver, drivers = first, []
        for number in range(self.frames):
            driver = (faces[number] if number < len(faces) else None) or driver
            drivers.append(driver)
        return [*drivers], notes

    def _beyond(self, keyframes: Keyframes) -> list[str]:
        beyond = [frame for frame in keyframes if frame >= self.frames]
        if not beyond:
            return []
        return [
            f"keyframe {beyond[0]} lies beyond the last frame, which is {self.frames - 1}, counted from 0: the motion "
            "ends on the way there."
        ]
