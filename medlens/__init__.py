"""medlens finds medical images by what they show: the public names, and nothing else.

First steps::

    import medlens

    medlens.index(["archive"], "medlens-store")
    with medlens.open("medlens-store") as store:
        for hit in store.search("axial CT of the chest").hits:
            print(hit.rank, hit.score, hit.key)

PyTorch is imported when a picture is encoded or a model is trained, not before.
"""

from __future__ import annotations

from indexer.reading.frames import FramePolicy
from indexer.records import IndexReport, Rejection
from indexer.run.options import Shard
from indexer.run.reembedding import ReembedProgress, ReembedReport
from indexer.store.store import Store
from indexer.tasks.answers import HitPicture, best_sentences, hit_pictures
from indexer.tasks.backing_up import Backup, backup, write_erasures
from indexer.tasks.calibrating import calibrate_files, calibrate_store
from indexer.tasks.classifying import (
    FileLabeller,
    LabelledFile,
    LabelledFrame,
    LabelledStudy,
    StoreLabeller,
    classify_files,
    classify_frames,
    classify_studies,
)
from indexer.tasks.copying import CohortMember, CopiedFiles, cohort, copy_files
from indexer.tasks.erasing import ErasurePlan, erase, erase_again, plan_erasure
from indexer.tasks.evaluating import EvaluationSettings, evaluate_pairs, evaluate_store
from indexer.tasks.exchange import export_frames, import_frames
from indexer.tasks.facts import StoreFacts, store_facts
from indexer.tasks.indexing import index
from indexer.tasks.optimizing import optimize_store
from indexer.tasks.reembedding import abandon_reembedding, reembed
from indexer.tasks.relocating import Relocation, relocate
from indexer.tasks.rendering import render_file, render_stored
from indexer.tasks.restoring import Restored, restore
from indexer.tasks.selecting import select
from indexer.tasks.showing import FrameFacts, show
from indexer.tasks.training import train
from indexer.tasks.training_pairs import ExportSettings, export_pairs
from indexer.tasks.verifying import Check, verify_store
from retrieval.encoders.model_check import Judgement, ModelCheck, check_model
from retrieval.encoders.model_list import ListedModel, add_model, list_models
from retrieval.encoders.public_models import PublicModel, public_models
from retrieval.errors import (
    CalibrationError,
    DecodeGuardError,
    DicomError,
    EmptyQuery,
    EncoderError,
    EvaluationError,
    FileUnreadable,
    InvalidImage,
    LabelSetError,
    MedlensError,
    NonFiniteEmbedding,
    NotDicomError,
    OutputError,
    PixelDecodeError,
    QueryError,
    StoreCorrupt,
    StoreError,
    StoreIncompatible,
    StoreNotFound,
    TrainingError,
    UnknownFilterKeyword,
    UnsupportedImageError,
    WeightsNotFound,
)
from retrieval.search.describe import SentenceHit
from retrieval.search.query import Fusion, ImagePart, Level, OnePer, Pooling, Query, Ranker, TextPart
from retrieval.search.refs import FrameRef, ShortRef, parse_ref
from retrieval.training.config import TrainingConfig, load_config
from retrieval.types import FrameKey, Hit, SearchFilter, SearchResults
from retrieval.zeroshot.calibration import Calibration, read_calibration
from retrieval.zeroshot.checking import check_labels
from retrieval.zeroshot.ground_truth import read_truth
from retrieval.zeroshot.labeller import LabelRequest
from retrieval.zeroshot.labels import LabelSet, load_labels, shipped_label_sets

open = Store.open  # noqa: A001 - read as medlens.open
migrate = Store.upgrade
Holder = OnePer  # its name in 0.1.0

__all__ = [
    "Backup",
    "Calibration",
    "CalibrationError",
    "Check",
    "CohortMember",
    "CopiedFiles",
    "DecodeGuardError",
    "DicomError",
    "EmptyQuery",
    "EncoderError",
    "ErasurePlan",
    "EvaluationError",
    "EvaluationSettings",
    "ExportSettings",
    "FileLabeller",
    "FileUnreadable",
    "FrameFacts",
    "FrameKey",
    "FramePolicy",
    "FrameRef",
    "Fusion",
    "Hit",
    "HitPicture",
    "ImagePart",
    "IndexReport",
    "InvalidImage",
    "Judgement",
    "LabelRequest",
    "LabelSet",
    "LabelSetError",
    "LabelledFile",
    "LabelledFrame",
    "LabelledStudy",
    "Level",
    "ListedModel",
    "MedlensError",
    "ModelCheck",
    "NonFiniteEmbedding",
    "NotDicomError",
    "OnePer",
    "OutputError",
    "PixelDecodeError",
    "Pooling",
    "PublicModel",
    "Query",
    "QueryError",
    "Ranker",
    "ReembedProgress",
    "ReembedReport",
    "Rejection",
    "Relocation",
    "Restored",
    "SearchFilter",
    "SearchResults",
    "SentenceHit",
    "Shard",
    "ShortRef",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreFacts",
    "StoreIncompatible",
    "StoreLabeller",
    "StoreNotFound",
    "TextPart",
    "TrainingConfig",
    "TrainingError",
    "UnknownFilterKeyword",
    "UnsupportedImageError",
    "WeightsNotFound",
    "abandon_reembedding",
    "add_model",
    "backup",
    "best_sentences",
    "calibrate_files",
    "calibrate_store",
    "check_labels",
    "check_model",
    "classify_files",
    "classify_frames",
    "classify_studies",
    "cohort",
    "copy_files",
    "erase",
    "erase_again",
    "evaluate_pairs",
    "evaluate_store",
    "export_frames",
    "export_pairs",
    "hit_pictures",
    "import_frames",
    "index",
    "list_models",
    "load_config",
    "load_labels",
    "migrate",
    "open",
    "optimize_store",
    "parse_ref",
    "plan_erasure",
    "public_models",
    "read_calibration",
    "read_truth",
    "reembed",
    "relocate",
    "render_file",
    "render_stored",
    "restore",
    "select",
    "shipped_label_sets",
    "show",
    "store_facts",
    "train",
    "verify_store",
    "write_erasures",
]
