"""The host's boxes as regions: BOUNDING_BOX and the elements that its Create Bounding Boxes canvas gives."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..box import Box
from ..inputs import as_number, kind_of
from ..messages import quoted
from ..saa.regions import Region, box_from_pixels

# The canvas writes an element's box as [ymin, xmin, ymax, xmax] in thousandths of the image.
_ELEMENT_UNITS = 1000.0
_SIDES = {"x", "y", "width", "height"}

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
    texts = [_metadata(box).get("desc") for box in _listed(boxes)]
    return tuple(text.strip() if isinstance(text, str) else "" for text in texts)


def _metadata(box: Any) -> Mapping[str, Any]:
    """Return where the text of a box stands: its metadata, or the element itself."""
    if not isinstance(box, dict):
        raise ValueError(f"{_EXPECTED}, got {kind_of(box)} in the list.")
    metadata = box.get("metadata")
    if metadata is None or (isinstance(metadata, (dict, str)) and not metadata):
        return box
    if not isinstance(metadata, dict):
        raise ValueError(f"{_EXPECTED}, with metadata that is a mapping, got {kind_of(metadata)}. Leave it out.")
    return metadata


def _listed(boxes: Any) -> Sequence[Any]:
    if isinstance(boxes, dict):
        boxes = [boxes]
    if isinstance(boxes, (list, tuple)) and boxes and isinstance(boxes[0], (list, tuple)):
        boxes = boxes[0]
    if not isinstance(boxes, (list, tuple)):
        raise ValueError(f"{_EXPECTED}, got {kind_of(boxes)}. Draw a box per person.")
    if not boxes:
        raise ValueError(f"{_EXPECTED}, got none. Draw a box per person.")
    return boxes


def _region(box: Any, width: int, height: int) -> Region:
    if not isinstance(box, dict):
        raise ValueError(f"{_EXPECTED}, got {kind_of(box)} in the list.")
    if "bbox" in box:
        edges = box["bbox"]
        if not isinstance(edges, (list, tuple)) or len(edges) != 4:
            raise ValueError(f"{_EXPECTED}, got bbox {quoted(edges)}.")
        y0, x0, y1, x1 = (as_number(edge, "bbox") / _ELEMENT_UNITS for edge in edges)
        return Region(box=Box(x0, y0, x1, y1))
    if not box.keys() >= _SIDES:
        raise ValueError(f"{_EXPECTED}, got {quoted(box)}.")
    x, y, wide, high = (as_number(box[side], f"A box's {side}") for side in ("x", "y", "width", "height"))
    return Region(box=box_from_pixels(Box.from_xywh(x, y, wide, high), width, height))
