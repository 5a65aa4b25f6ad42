"""Attributes of frames from the functional groups of an enhanced object (PS3.3 C.7.6.16).

The frame's own group has precedence over the shared group, and that over the dataset itself. Only the groups of indexed
frames are read: an object can have thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pydicom.dataset import Dataset

from indexer.dicom.anatomy import body_part, side
from indexer.dicom.attributes import read_attribute
from indexer.dicom.values import first_item, item_at, quiet
from indexer.keywords import BY_FRAME, COLUMNS, ValueKind
from indexer.privacy.codes import CLOSED, closed_code
from indexer.records import AttributeValue, InstanceRecord

Warn = Callable[[str], None]

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_FRAME_LATERALITY = 0x00209072
_MACROS = {  # PS3.3 C.7.6.16.2.1, .3 and .4
    "slice_thickness": "PixelMeasuresSequence",
    "image_position_patient": "PlanePositionSequence",
    "image_orientation_patient": "PlaneOrientationSequence",
}


def with_shared(ds: Dataset, attributes: dict[str, AttributeValue], warn: Warn) -> None:
    """Complete the attributes of an instance, in place, from its codes of anatomy and its shared group."""
    for name, coded in (("body_part_examined", body_part(ds)), ("image_laterality", side(ds))):
        if attributes[name] is None:
            attributes[name] = coded
    shared = first_item(ds, _SHARED)
    attributes.update({} if shared is None else _of_group(shared, warn))


def with_frames(record: InstanceRecord, ds: Dataset, numbers: Iterable[int], warn: Warn) -> InstanceRecord:
    """Return the record with the attributes of these frames from their own groups.

    An attribute that is equal in all of them becomes the instance's. Other attributes are stored by frame, and are None
    for the instance.
    """
    with quiet("pydicom"):
        own = {number: _of_frame(ds, number, warn) for number in numbers}
    attributes = dict(record.attributes)
    frames: dict[int, dict[str, AttributeValue]] = {number: {} for number in own}
    for name in BY_FRAME:
        values = {number: own_values.get(name, attributes[name]) for number, own_values in own.items()}
        if len(set(values.values())) > 1:
            attributes[name] = None
            for number, value in values.items():
                frames[number][name] = value
        elif values:
            attributes[name] = next(iter(values.values()))
    return replace(record, attributes=attributes, frame_attributes=frames if any(frames.values()) else {})


def _of_frame(ds: Dataset, number: int, warn: Warn) -> Mapping[str, AttributeValue]:
    group = item_at(ds, _PER_FRAME, number - 1)
    return {} if group is None else _of_group(group, warn)


def _of_group(group: Dataset, warn: Warn) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    for name, macro in _MACROS.items():
        if (item := first_item(group, macro)) is not None:
            keyword = COLUMNS[name]
            found[name] = read_attribute(item, keyword.tag, keyword.kind, f"{keyword.name} in {macro}", warn)
    if (anatomy := first_item(group, "FrameAnatomySequence")) is not None:  # C.7.6.16.2.8
        found["body_part_examined"] = body_part(anatomy)
        found["image_laterality"] = _frame_side(anatomy, warn) or side(anatomy)
    return {name: value for name, value in found.items() if value is not None}


def _frame_side(anatomy: Dataset, warn: Warn) -> str | None:
    label = "(0020,9072) FrameLaterality"
    laterality = read_attribute(anatomy, _FRAME_LATERALITY, ValueKind.TEXT, label, warn)
    if laterality is None:
        return None
    code = closed_code(str(laterality), CLOSED["image_laterality"])
    if code.was_cut:
        warn(f"{label} contains identifying text or is not a code; that part was removed")
    return code.value
