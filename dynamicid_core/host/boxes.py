"""The host's boxes as regions: BOUNDING_BOX and the elements that its Create Bounding Boxes canvas gives."""

from collections.abc import Sequence
from typing import Any

from ..box import Box
from ..saa.regions import Region, box_from_pixels

# The canvas writes an element's box as [ymin, xmin, ymax, xmax] in thousandths of the image.
_ELEMENT_UNITS = 1000.0

_EXPECTED = (
    "Boxes are expected as the host's BOUNDING_BOX ({x, y, width, height} in pixels, one or a list) or as the "
    "elements of Create Bounding Boxes ({bbox: [ymin, xmin, ymax, xmax]})"
)


def regions_from_boxes(boxes: Any, width: int, height: int) -> tuple[Region, ...]:
    """Return the host's boxes as regions, in their order.

    Args:
        boxes: a box, a list of boxes, a list of lists of boxes (one list per image of a batch: the first counts),
            or a list of elements.
        width, height: pixels of the image that pixel boxes were drawn for; elements don't need it.

    Raises:
        ValueError: none of these, or a box outside the image.
    """
    return tuple(_region(box, width, height) for box in _listed(boxes))


def descriptions(boxes: Any) -> tuple[str, ...]:
    """Return the text at each box (`desc` of an element, or of a box's metadata), "" where there is none.

    Args:
        boxes: as `regions_from_boxes` takes them.
    """
    elements = [box.get("metadata") or box if isinstance(box, dict) else {} for box in _listed(boxes)]
    return tuple(str(element.get("desc") or "").strip() for element in elements)


def _listed(boxes: Any) -> Sequence[Any]:
    if isinstance(boxes, dict):
        boxes = [boxes]
    if isinstance(boxes, (list, tuple)) and boxes and isinstance(boxes[0], (list, tuple)):
        boxes = boxes[0]
    if not isinstance(boxes, (list, tuple)) or not boxes:
        raise ValueError(f"{_EXPECTED}, got {'none' if not boxes else type(boxes).__name__}. Draw a box per person.")
    return boxes


def _region(box: Any, width: int, height: int) -> Region:
    if not isinstance(box, dict):
        raise ValueError(f"{_EXPECTED}, got {type(box).__name__} in the list.")
    try:
        if "bbox" in box:
            y0, x0, y1, x1 = (float(edge) / _ELEMENT_UNITS for edge in box["bbox"])
            return Region(box=Box(x0, y0, x1, y1))
        pixels = Box.from_xywh(*(float(box[key]) for key in ("x", "y", "width", "height")))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{_EXPECTED}, got {box!r}.") from error
    return Region(box=box_from_pixels(pixels, width, height))
