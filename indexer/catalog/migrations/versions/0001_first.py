"""The first schema: archives, files, instances, frames, reports, sentences, deletions, manifest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite's AUTOINCREMENT wants INTEGER by that name


def upgrade() -> None:
    op.create_table(
        "archives",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("root", sa.Text(), nullable=False, comment="absolute path of the archive's root"),
        sa.PrimaryKeyConstraint("id", name="pk_archives"),
        sa.UniqueConstraint("root", name="uq_archives_root"),
    )
    op.create_table(
        "deletions",
        sa.Column("seq", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="frame or sentence"),
        sa.Column("row_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_deletions"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "manifest",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_manifest"),
    )
    op.create_table(
        "files",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("archive_id", BIG_ID, nullable=False),
        sa.Column("path", sa.Text(), nullable=False, comment="relative to the archive's root, with '/'"),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="bytes"),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False, comment="nanoseconds since 1970"),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column(
            "reason", sa.String(length=64), nullable=False, comment="why rejected; 'duplicate' for a second copy"
        ),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column(
            "content_hash",
            sa.String(length=128),
            nullable=True,
            comment="of the file's bytes; tells a moved file and a conflict",
        ),
        sa.Column(
            "sop_instance_uid", sa.Text(), nullable=True, comment="the instance it holds, indexed or in conflict"
        ),
        sa.CheckConstraint("status IN ('indexed', 'rejected')", name="ck_files_status"),
        sa.ForeignKeyConstraint(["archive_id"], ["archives.id"], name="fk_files_archive_id"),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.UniqueConstraint("archive_id", "path", name="uq_files_archive_id"),
    )
    op.create_index("ix_files_content_hash", "files", ["content_hash"], unique=False)
    op.create_index("ix_files_sop_instance_uid", "files", ["sop_instance_uid"], unique=False)
    op.create_table(
        "instances",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("file_id", BIG_ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="image, report or other"),
        sa.Column("patient_pseudonym", sa.Text(), nullable=True, comment="keyed HMAC of the patient's identity"),
        sa.Column("study_instance_uid", sa.Text(), nullable=True, comment="(0020,000D) StudyInstanceUID | VR UI, VM 1"),
        sa.Column("study_date", sa.Date(), nullable=True, comment="(0008,0020) StudyDate | VR DA, VM 1"),
        sa.Column("study_description", sa.Text(), nullable=True, comment="(0008,1030) StudyDescription | VR LO, VM 1"),
        sa.Column("patient_age", sa.Double(), nullable=True, comment="(0010,1010) PatientAge | VR AS, VM 1"),
        sa.Column("patient_sex", sa.Text(), nullable=True, comment="(0010,0040) PatientSex | VR CS, VM 1"),
        sa.Column(
            "series_instance_uid", sa.Text(), nullable=True, comment="(0020,000E) SeriesInstanceUID | VR UI, VM 1"
        ),
        sa.Column("modality", sa.Text(), nullable=True, comment="(0008,0060) Modality | VR CS, VM 1"),
        sa.Column("series_number", sa.BigInteger(), nullable=True, comment="(0020,0011) SeriesNumber | VR IS, VM 1"),
        sa.Column(
            "series_description", sa.Text(), nullable=True, comment="(0008,103E) SeriesDescription | VR LO, VM 1"
        ),
        sa.Column("body_part_examined", sa.Text(), nullable=True, comment="(0018,0015) BodyPartExamined | VR CS, VM 1"),
        sa.Column("laterality", sa.Text(), nullable=True, comment="(0020,0060) Laterality | VR CS, VM 1"),
        sa.Column("manufacturer", sa.Text(), nullable=True, comment="(0008,0070) Manufacturer | VR LO, VM 1"),
        sa.Column(
            "manufacturer_model_name",
            sa.Text(),
            nullable=True,
            comment="(0008,1090) ManufacturerModelName | VR LO, VM 1",
        ),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False, comment="(0008,0018) SOPInstanceUID | VR UI, VM 1"),
        sa.Column("sop_class_uid", sa.Text(), nullable=True, comment="(0008,0016) SOPClassUID | VR UI, VM 1"),
        sa.Column(
            "instance_number", sa.BigInteger(), nullable=True, comment="(0020,0013) InstanceNumber | VR IS, VM 1"
        ),
        sa.Column("image_type", sa.Text(), nullable=True, comment="(0008,0008) ImageType | VR CS, VM 2-n"),
        sa.Column("view_position", sa.Text(), nullable=True, comment="(0018,5101) ViewPosition | VR CS, VM 1"),
        sa.Column("image_laterality", sa.Text(), nullable=True, comment="(0020,0062) ImageLaterality | VR CS, VM 1"),
        sa.Column("content_date", sa.Date(), nullable=True, comment="(0008,0023) ContentDate | VR DA, VM 1"),
        sa.Column("slice_thickness", sa.Double(), nullable=True, comment="(0018,0050) SliceThickness | VR DS, VM 1"),
        sa.Column(
            "image_orientation_patient",
            sa.Text(),
            nullable=True,
            comment="(0020,0037) ImageOrientationPatient | VR DS, VM 6",
        ),
        sa.Column(
            "image_position_patient",
            sa.Text(),
            nullable=True,
            comment="(0020,0032) ImagePositionPatient | VR DS, VM 3",
        ),
        sa.Column(
            "number_of_frames", sa.BigInteger(), nullable=True, comment="(0028,0008) NumberOfFrames | VR IS, VM 1"
        ),
        sa.Column("rows", sa.BigInteger(), nullable=True, comment="(0028,0010) Rows | VR US, VM 1"),
        sa.Column("columns", sa.BigInteger(), nullable=True, comment="(0028,0011) Columns | VR US, VM 1"),
        sa.Column(
            "photometric_interpretation",
            sa.Text(),
            nullable=True,
            comment="(0028,0004) PhotometricInterpretation | VR CS, VM 1",
        ),
        sa.Column(
            "burned_in_annotation",
            sa.Boolean(),
            nullable=True,
            comment="(0028,0301) BurnedInAnnotation | VR CS, VM 1",
        ),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_instances_file_id"),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.UniqueConstraint("file_id", name="uq_instances_file_id"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_instances_sop_instance_uid"),
    )
    op.create_index("ix_instances_body_part_examined", "instances", ["body_part_examined"], unique=False)
    op.create_index("ix_instances_modality", "instances", ["modality"], unique=False)
    op.create_index("ix_instances_patient_pseudonym", "instances", ["patient_pseudonym"], unique=False)
    op.create_index("ix_instances_series_instance_uid", "instances", ["series_instance_uid"], unique=False)
    op.create_index("ix_instances_study_instance_uid", "instances", ["study_instance_uid"], unique=False)
    op.create_table(
        "frames",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False, comment="the id in the vector index"),
        sa.Column("instance_id", BIG_ID, nullable=False),
        sa.Column("frame_number", sa.Integer(), nullable=False, comment="from 1, as the standard counts"),
        sa.Column("vector", sa.LargeBinary(), nullable=False, comment="embed_dim x float16, little endian, unit norm"),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name="fk_frames_instance_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_frames"),
        sa.UniqueConstraint("instance_id", "frame_number", name="uq_frames_instance_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "reports",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("instance_id", BIG_ID, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name="fk_reports_instance_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_reports"),
        sa.UniqueConstraint("instance_id", name="uq_reports_instance_id"),
    )
    op.create_table(
        "sentences",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False, comment="the id in the sentence index"),
        sa.Column("report_id", BIG_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="from 0"),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False, comment="embed_dim x float16, little endian, unit norm"),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name="fk_sentences_report_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_sentences"),
        sa.UniqueConstraint("report_id", "position", name="uq_sentences_report_id"),
        sqlite_autoincrement=True,
    )
