BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE archives (
	id INTEGER NOT NULL, 
	root TEXT NOT NULL, 
	CONSTRAINT pk_archives PRIMARY KEY (id), 
	CONSTRAINT uq_archives_root UNIQUE (root)
);
INSERT INTO "archives" VALUES(1,'/archive');
CREATE TABLE deletions (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind VARCHAR(16) NOT NULL, 
	row_id BIGINT NOT NULL
);
INSERT INTO "deletions" VALUES(1,'frame',4);
INSERT INTO "deletions" VALUES(2,'frame',5);
INSERT INTO "deletions" VALUES(3,'frame',6);
CREATE TABLE files (
	id INTEGER NOT NULL, 
	archive_id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	reason VARCHAR(64) NOT NULL, 
	detail TEXT NOT NULL, 
	content_hash VARCHAR(128), 
	sop_instance_uid TEXT, 
	CONSTRAINT pk_files PRIMARY KEY (id), 
	CONSTRAINT ck_files_ck_files_status CHECK (status IN ('indexed', 'rejected')), 
	CONSTRAINT fk_files_archive_id FOREIGN KEY(archive_id) REFERENCES archives (id), 
	CONSTRAINT uq_files_archive_id UNIQUE (archive_id, path)
);
INSERT INTO "files" VALUES(1,1,'study/1.dcm',1,1,'indexed','','','514f73f6cca8d5d3e371c1124b36a988363ce1f769334da1eb50e6c7626c27cb','1.1');
INSERT INTO "files" VALUES(2,1,'study/2.dcm',2,2,'indexed','','','edb074606d90fa9d0073e5ae07dd4cd4d55eb67e469666c758ffa2df565106a7','1.2');
INSERT INTO "files" VALUES(3,1,'study/sr.dcm',2,3,'indexed','','','21ecf8eab9ae0b9e8d28ad11ce505051b0c4d15e700e1b064d7ed1645702b968','1.3');
INSERT INTO "files" VALUES(5,1,'broken.dcm',9,4,'rejected','pixel-decode','cut off',NULL,NULL);
INSERT INTO "files" VALUES(6,1,'copy.dcm',1,5,'indexed','duplicate','the same bytes as another file of 1.1','514f73f6cca8d5d3e371c1124b36a988363ce1f769334da1eb50e6c7626c27cb','1.1');
INSERT INTO "files" VALUES(7,1,'other.dcm',2,6,'rejected','conflict','another file with other content has SOP Instance UID 1.1','cb2e44653a96bda81bf6afbd64856255fffc69199cc702495e03f9242869e42f','1.1');
CREATE TABLE frames (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	instance_id INTEGER NOT NULL, 
	frame_number INTEGER NOT NULL, 
	vector BLOB NOT NULL, 
	CONSTRAINT fk_frames_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id) ON DELETE CASCADE, 
	CONSTRAINT uq_frames_instance_id UNIQUE (instance_id, frame_number)
);
INSERT INTO "frames" VALUES(1,1,1,X'B62CC6AAF73814367FB77829B8AEACB7');
INSERT INTO "frames" VALUES(2,1,2,X'6535993673350228C2AC87B7C2337BB8');
INSERT INTO "frames" VALUES(3,2,1,X'3A1A752F64B9DD279230E63529369F37');
CREATE TABLE instances (
	id INTEGER NOT NULL, 
	file_id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	patient_pseudonym TEXT, 
	study_instance_uid TEXT, 
	study_date DATE, 
	study_description TEXT, 
	patient_age DOUBLE, 
	patient_sex TEXT, 
	series_instance_uid TEXT, 
	modality TEXT, 
	series_number BIGINT, 
	series_description TEXT, 
	body_part_examined TEXT, 
	laterality TEXT, 
	manufacturer TEXT, 
	manufacturer_model_name TEXT, 
	sop_instance_uid TEXT NOT NULL, 
	sop_class_uid TEXT, 
	instance_number BIGINT, 
	image_type TEXT, 
	view_position TEXT, 
	image_laterality TEXT, 
	content_date DATE, 
	slice_thickness DOUBLE, 
	image_orientation_patient TEXT, 
	image_position_patient TEXT, 
	number_of_frames BIGINT, 
	rows BIGINT, 
	columns BIGINT, 
	photometric_interpretation TEXT, 
	burned_in_annotation BOOLEAN, 
	CONSTRAINT pk_instances PRIMARY KEY (id), 
	CONSTRAINT fk_instances_file_id FOREIGN KEY(file_id) REFERENCES files (id), 
	CONSTRAINT uq_instances_file_id UNIQUE (file_id), 
	CONSTRAINT uq_instances_sop_instance_uid UNIQUE (sop_instance_uid)
);
INSERT INTO "instances" VALUES(1,1,'image','p1.1','1.1.study','2020-01-31',NULL,60.0,NULL,NULL,'CT',NULL,NULL,NULL,NULL,NULL,NULL,'1.1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "instances" VALUES(2,2,'image','p1.2','1.2.study',NULL,NULL,NULL,NULL,NULL,'MR',NULL,NULL,'Schädel',NULL,NULL,NULL,'1.2',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "instances" VALUES(3,3,'report','p1.3','1.3.study',NULL,NULL,NULL,NULL,NULL,'SR',NULL,NULL,NULL,NULL,NULL,NULL,'1.3',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE manifest (
	"key" VARCHAR(64) NOT NULL, 
	value JSON NOT NULL, 
	CONSTRAINT pk_manifest PRIMARY KEY ("key")
);
INSERT INTO "manifest" VALUES('store_id','"0001"');
INSERT INTO "manifest" VALUES('model','{"name": "demo", "weights_sha256": "abababababababababababababababababababababababababababababababab", "embed_dim": 8, "render": {"name": "header"}}');
INSERT INTO "manifest" VALUES('pseudonym_key_check','"345b0b91e736a2eb00faefc71f4182d4ecad8d9aa9dd001f62248aaecc8b1436"');
CREATE TABLE reports (
	id INTEGER NOT NULL, 
	instance_id INTEGER NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT pk_reports PRIMARY KEY (id), 
	CONSTRAINT fk_reports_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id) ON DELETE CASCADE, 
	CONSTRAINT uq_reports_instance_id UNIQUE (instance_id)
);
INSERT INTO "reports" VALUES(1,3,'No effusion. The heart is large.');
CREATE TABLE sentences (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	report_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	text TEXT NOT NULL, 
	vector BLOB NOT NULL, 
	CONSTRAINT fk_sentences_report_id FOREIGN KEY(report_id) REFERENCES reports (id) ON DELETE CASCADE, 
	CONSTRAINT uq_sentences_report_id UNIQUE (report_id, position)
);
INSERT INTO "sentences" VALUES(1,1,0,'No effusion.',X'7DB40BB35C2BB0B56435C9B2E2AD133A');
INSERT INTO "sentences" VALUES(2,1,1,'The heart is large.',X'A02880B2862BC4B825B045B7D128E5B8');
CREATE INDEX ix_files_content_hash ON files (content_hash);
CREATE INDEX ix_files_sop_instance_uid ON files (sop_instance_uid);
CREATE INDEX ix_instances_body_part_examined ON instances (body_part_examined);
CREATE INDEX ix_instances_modality ON instances (modality);
CREATE INDEX ix_instances_patient_pseudonym ON instances (patient_pseudonym);
CREATE INDEX ix_instances_series_instance_uid ON instances (series_instance_uid);
CREATE INDEX ix_instances_study_instance_uid ON instances (study_instance_uid);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('frames',6);
INSERT INTO "sqlite_sequence" VALUES('sentences',2);
INSERT INTO "sqlite_sequence" VALUES('deletions',3);
COMMIT;
