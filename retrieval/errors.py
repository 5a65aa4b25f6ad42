"""Every error that medlens raises on purpose.

    MedlensError                      the CLI prints one line and a hint, exit code 1
    |- DicomError                     one file; while indexing it becomes a Rejection and the run goes on
    |  |- FileUnreadable              the system gives no bytes: permission, dangling link, a network share gone
    |  |- NotDicomError               the bytes are no DICOM
    |  |- UnsupportedImageError       DICOM, but no picture that medlens can show
    |  |- PixelDecodeError            the pixel data is broken, or no decoder reads it
    |  '- DecodeGuardError            stopped by the guard: memory, deadline, a lying header, a dead worker
    |- StoreError
    |  |- StoreNotFound               there is no store at that place
    |  |- StoreIncompatible           made by another model, or by another version of the schema
    |  '- StoreCorrupt                what is there contradicts itself
    |- EncoderError
    |  |- WeightsNotFound             no model of that name or at that place
    |  '- NonFiniteEmbedding          the model gave NaN or infinity
    |- OutputError                    a file can't be written there, or must not be replaced
    |- QueryError
    |  |- EmptyQuery                  nothing to search for
    |  |- UnknownFilterKeyword        a filter names an attribute that the catalog does not keep
    |  '- InvalidImage                the query image is no image that medlens can read
    |- LabelSetError                  a label set that can't be used
    |- CalibrationError               labelled rows that calibrate nothing, or a calibration of something else
    |- EvaluationError                rows that can't be judged: a field is missing, train and test share patients
    '- TrainingError                  a training configuration or its data can't be used

A message says what was seen, what was expected and the likely cause; `hint` says what to do. Messages never carry a
patient's name, ID or birth date. Wrong calls by our own code stay `ValueError` and `TypeError`.
"""

from __future__ import annotations


class MedlensError(Exception):
    """Base of all errors that a user can meet. `hint` is one sentence on what to do, or empty."""

    default_hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint


class DicomError(MedlensError):
    """One file can't be used. `code` is a short, stable word that reports group by."""

    code = "dicom"


class FileUnreadable(DicomError):
    code = "unreadable"
    default_hint = "Check that the file is there, complete and readable, then run again."


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
    default_hint = "Make one with `medlens index ARCHIVE --store DIR`, or name another with --store or MEDLENS_STORE."


class StoreIncompatible(StoreError):
    pass


class StoreCorrupt(StoreError):
    pass


class EncoderError(MedlensError):
    pass


class WeightsNotFound(EncoderError):
    default_hint = "`medlens models` lists what is at hand."


class NonFiniteEmbedding(EncoderError):
    pass


class OutputError(MedlensError):
    pass


class QueryError(MedlensError):
    pass


class EmptyQuery(QueryError):
    default_hint = 'Say what to look for, for example: medlens search "chest radiograph with effusion".'


class UnknownFilterKeyword(QueryError):
    pass


class InvalidImage(QueryError):
    pass


class LabelSetError(MedlensError):
    default_hint = "`medlens labels list` shows the label sets that ship with medlens."


class CalibrationError(MedlensError):
    pass


class EvaluationError(MedlensError):
    pass


class TrainingError(MedlensError):
    pass
