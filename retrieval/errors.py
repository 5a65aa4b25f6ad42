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
    code = "unreadable"
    default_hint = "Check that the file exists, is complete and can be read. Then run the command again."


class NotDicomError(DicomError):
    code = "not-dicom"


class UnsupportedImageError(DicomError):
    code = "unsupported-image"


class PixelDecodeError(DicomError):
    code = "pixel-decode"


class DecodeGuardError(DicomError):
    code = "guard"


class StoreError(MedlensError):
    pass


class StoreNotFound(StoreError):
    default_hint = "Create one with `medlens index ARCHIVE --store DIR`, or name another with --store or MEDLENS_STORE."


class StoreIncompatible(StoreError):
    pass


class StoreCorrupt(StoreError):
    pass


class EncoderError(MedlensError):
    pass


class WeightsNotFound(EncoderError):
    default_hint = "`medlens models` lists the available models."


class NonFiniteEmbedding(EncoderError):
    pass


class OutputError(MedlensError):
    pass


class QueryError(MedlensError):
    pass


class EmptyQuery(QueryError):
    default_hint = 'Enter what to search for, for example: medlens search "chest radiograph with effusion".'


class UnknownFilterKeyword(QueryError):
    pass


class InvalidImage(QueryError):
    pass


class LabelSetError(MedlensError):
    default_hint = "`medlens labels list` shows the label sets that are part of medlens."


class CalibrationError(MedlensError):
    pass


class EvaluationError(MedlensError):
    pass


class TrainingError(MedlensError):
    pass
