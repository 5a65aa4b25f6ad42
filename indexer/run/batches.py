"""Batches of files that are encoded and committed together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from indexer.reading.files import FileToRead, ReadFile, SameBytes
from indexer.records import FileStat, IndexedFile, InstanceRecord, Rejection
from retrieval.encoders.unread import unread
from retrieval.errors import DicomError
from retrieval.types import Encoder

MOST_FILES = 512
TOO_LONG = "a sentence of a report is longer than the model reads"  # a warning: words alone find its end


@dataclass
class Batch:
    """The files of a batch by what happens to them.

    `copies` have the bytes of an indexed file, named by their content hash.
    """

    read: list[tuple[FileStat, ReadFile]] = field(default_factory=list)
    refused: list[tuple[FileStat, Rejection]] = field(default_factory=list)
    copies: list[tuple[FileStat, str]] = field(default_factory=list)
    to_encode: int = 0  # pictures and sentences

    def __len__(self) -> int:
        return len(self.read) + len(self.refused) + len(self.copies)

    def add(self, file: FileToRead, outcome: ReadFile | SameBytes | DicomError) -> None:
        if isinstance(outcome, DicomError):
            self.refused.append((file.stat, Rejection(file.stat.path, outcome.code, str(outcome))))
        elif isinstance(outcome, SameBytes):
            self.copies.append((file.stat, outcome.content_hash))
        else:
            self.read.append((file.stat, outcome))
            self.to_encode += len(outcome.pictures) + len(outcome.sentences)

    def without_copies(self, hashes_known: Callable[[Iterable[str]], Collection[str]]) -> Batch:
        """Return the batch with files whose content is indexed already moved to the copies, which need no encoding."""
        known = hashes_known(read.content_hash for _, read in self.read)
        copies = [(stat, read.content_hash) for stat, read in self.read if read.content_hash in known]
        kept = [(stat, read) for stat, read in self.read if read.content_hash not in known]
        return Batch(kept, self.refused, self.copies + copies)


def batches(read: Iterable[tuple[FileToRead, ReadFile | SameBytes | DicomError]], size: int) -> Iterator[Batch]:
    """Yield batches with `size` pictures and sentences to encode (the last file may add more) or MOST_FILES files.

    A batch is just large enough to keep the encoder busy. A kill or Ctrl-C loses one: on a slow encoder, seconds of
    work.
    """
    batch = Batch()
    for file, outcome in read:
        batch.add(file, outcome)
        if batch.to_encode >= size or len(batch) >= MOST_FILES:
            yield batch
            batch = Batch()
    if len(batch):
        yield batch


def encoded(batch: Batch, encoder: Encoder) -> list[IndexedFile]:
    """Return the read files with the vectors of their frames and sentences. Equal sentences are encoded once."""
    pictures = [picture for _, read in batch.read for picture in read.pictures]
    texts = list(dict.fromkeys(text for _, read in batch.read for text in read.sentences))
    image_vectors = encoder.encode_images(pictures)
    text_vectors = encoder.encode_text(texts)
    too_long = {text for text, rest in zip(texts, unread(encoder, texts), strict=True) if rest}
    place = {text: i for i, text in enumerate(texts)}
    files, start = [], 0
    for stat, read in batch.read:
        end = start + len(read.pictures)
        files.append(
            IndexedFile(
                stat=stat,
                record=_with_warning(read.record, too_long.intersection(read.sentences)),
                frame_numbers=read.frame_numbers,
                frame_vectors=image_vectors[start:end],
                sentences=read.sentences,
                sentence_vectors=text_vectors[np.array([place[t] for t in read.sentences], np.int64)],
                content_hash=read.content_hash,
            )
        )
        start = end
    return files


def _with_warning(record: InstanceRecord, too_long: Collection[str]) -> InstanceRecord:
    if not too_long:
        return record
    return replace(record, warnings=(*record.warnings, TOO_LONG))
