"""Every error that medlens raises on purpose.

    MedlensError                      the CLI prints one line and a hint, exit code 1
    |- DicomError                     one file; while indexing it becomes a Rejection and the run goes on
    |  |- FileUnreadable              the system can't read the file: permission, dangling link, lost network share
    |  |- NotDicomError               the file is not DICOM
    |  |- UnsupportedImageError       DICOM, but not an image that medlens can render
    |  |- PixelDecodeError            the pixel data is damaged, or no decoder supports it
    |  '- DecodeGuardError            stopped by the guard: memory, deadline, false header, worker crash
    |- StoreError
    |  |- StoreNotFound               there is no store at that location
    |  |- StoreIncompatible           made by another model, or by another version of the schema
    |  '- StoreCorrupt                the store contradicts itself
    |- EncoderError
    |  |- WeightsNotFound             there is no model of that name or at that location
    |  '- NonFiniteEmbedding          the model returned NaN or infinity
    |- OutputError                    an output file can't be written or must not be replaced
    |- QueryError
    |  |- EmptyQuery                  the query is empty
    |  |- UnknownFilterKeyword        a filter names an attribute that is not in the catalog
    |  '- InvalidImage                medlens can't read the query image
    |- LabelSetError                  the label set can't be used
    |- CalibrationError               the labelled rows can't be used, or the calibration is for something else
    |- EvaluationError                the rows can't be evaluated: a field is missing, or splits share patients
    '- TrainingError                  the training configuration or its data can't be used

A message says what happened, what was expected and the likely cause; `hint` says what to do. A message never contains a
patient's name, ID or birth date. Wrong calls by medlens's own code raise `ValueError` and `TypeError`.
"""

from __future__ import annotations


class MedlensError(Exception):
    """Base of all errors that users can see. `hint` is one sentence on what to do, or empty."""

    default_hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint


class DicomError(MedlensError):
    """One file can't be used. Reports group errors by `code`, a short and stable word."""

    code = "dicom"


class FileUnreadable(DicomError):
    """The file does not exist, is cut short, or may not be read."""

    code = "unreadable"
    default_hint = "Check that the file exists, is complete and can be read. Then run the command again."


class NotDicomError(DicomError):
    """The file is not a DICOM file."""

    code = "not-dicom"


class UnsupportedImageError(DicomError):
    """The file is DICOM, but medlens does not make a picture of its pixels."""

    code = "unsupported-image"


class PixelDecodeError(DicomError):
    """The pixel data are damaged or contradict the header."""

    code = "pixel-decode"


class DecodeGuardError(DicomError):
    """Reading the file exceeded a limit of memory or time, or stopped the worker process."""

    code = "guard"


class StoreError(MedlensError):
    """Something is wrong with a store."""


class StoreNotFound(StoreError):
    """There is no store at this place."""

    default_hint = "Create one with `medlens index ARCHIVE --store DIR`, or name another with --store or MEDLENS_STORE."


class StoreIncompatible(StoreError):
    """The store was made by another version of medlens, or with another model."""


class StoreCorrupt(StoreError):
    """A file or a row of the store is damaged."""


class EncoderError(MedlensError):
    """A model can't be loaded or can't encode."""


class WeightsNotFound(EncoderError):
    """There is no model of this name, or its files are missing."""

    default_hint = "`medlens models` lists the available models."


class NonFiniteEmbedding(EncoderError):
    """A model returned a vector that holds NaN or infinity."""


class OutputError(MedlensError):
    """An output file can't be written."""


class QueryError(MedlensError):
    """A search or a filter is not valid."""


class EmptyQuery(QueryError):
    """The query has neither words nor an image."""

    default_hint = 'Enter what to search for, for example: medlens search "chest radiograph with effusion".'


class UnknownFilterKeyword(QueryError):
    """A filter names an attribute that the catalog does not have."""


class InvalidImage(QueryError):
    """The example image can't be used."""


class LabelSetError(MedlensError):
    """A label set does not exist or is not valid."""

    default_hint = "`medlens labels list` shows the label sets that are part of medlens."


class CalibrationError(MedlensError):
    """A calibration can't be made, or belongs to another model or label set."""


class EvaluationError(MedlensError):
    """The data can't be evaluated as asked."""


class TrainingError(MedlensError):
    """A training configuration or its data can't be used."""
