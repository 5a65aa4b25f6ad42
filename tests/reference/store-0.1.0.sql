--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: alembic_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: archives; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.archives (
    id bigint NOT NULL,
    root text NOT NULL
);


--
-- Name: COLUMN archives.root; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.archives.root IS 'absolute path of the archive''s root';


--
-- Name: archives_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.archives_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: archives_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.archives_id_seq OWNED BY public.archives.id;


--
-- Name: claims; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.claims (
    archive_id bigint NOT NULL,
    path text NOT NULL,
    worker_id bigint NOT NULL
);


--
-- Name: COLUMN claims.path; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.claims.path IS 'relative to the archive''s root, with ''/''';


--
-- Name: deletions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.deletions (
    seq bigint NOT NULL,
    kind character varying(16) NOT NULL,
    row_id bigint NOT NULL
);


--
-- Name: COLUMN deletions.kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.deletions.kind IS 'frame or sentence';


--
-- Name: deletions_seq_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.deletions_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: deletions_seq_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.deletions_seq_seq OWNED BY public.deletions.seq;


--
-- Name: erasures; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.erasures (
    digest character varying(64) NOT NULL,
    scope character varying(16) NOT NULL
);


--
-- Name: COLUMN erasures.digest; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.erasures.digest IS 'keyed HMAC of what must not come back';


--
-- Name: COLUMN erasures.scope; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.erasures.scope IS 'patient, study, series, instance or file';


--
-- Name: files; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.files (
    id bigint NOT NULL,
    archive_id bigint NOT NULL,
    path text NOT NULL COLLATE pg_catalog."C",
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    status character varying(16) NOT NULL,
    reason character varying(64) NOT NULL,
    detail text NOT NULL,
    content_hash character varying(128),
    sop_instance_uid text,
    CONSTRAINT ck_files_ck_files_status CHECK (((status)::text = ANY ((ARRAY['indexed'::character varying, 'rejected'::character varying])::text[])))
);


--
-- Name: COLUMN files.path; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.files.path IS 'relative to the archive''s root, with ''/''';


--
-- Name: COLUMN files.size; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.files.size IS 'bytes';


--
-- Name: COLUMN files.mtime_ns; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.files.mtime_ns IS 'nanoseconds since 1970';


--
-- Name: COLUMN files.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.files.reason IS 'why rejected; ''duplicate'' for a second copy';


--
-- Name: COLUMN files.content_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.files.content_hash IS 'of the file''s bytes; tells a moved file and a conflict';


--
-- Name: COLUMN files.sop_instance_uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.files.sop_instance_uid IS 'the instance it holds, indexed or in conflict';


--
-- Name: files_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.files_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: files_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.files_id_seq OWNED BY public.files.id;


--
-- Name: frames; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.frames (
    id bigint NOT NULL,
    instance_id bigint NOT NULL,
    frame_number integer NOT NULL,
    vector bytea NOT NULL
);


--
-- Name: COLUMN frames.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.frames.id IS 'the id in the vector index';


--
-- Name: COLUMN frames.frame_number; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.frames.frame_number IS 'from 1, as the standard counts';


--
-- Name: COLUMN frames.vector; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.frames.vector IS 'embed_dim x float16, little endian, unit norm';


--
-- Name: frames_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.frames_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: frames_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.frames_id_seq OWNED BY public.frames.id;


--
-- Name: instances; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.instances (
    id bigint NOT NULL,
    file_id bigint NOT NULL,
    kind character varying(16) NOT NULL,
    patient_pseudonym text,
    study_instance_uid text,
    study_date date,
    study_description text,
    patient_age double precision,
    patient_sex text,
    series_instance_uid text,
    modality text,
    series_number bigint,
    series_description text,
    body_part_examined text,
    laterality text,
    manufacturer text,
    manufacturer_model_name text,
    sop_instance_uid text NOT NULL,
    sop_class_uid text,
    instance_number bigint,
    image_type text,
    view_position text,
    image_laterality text,
    content_date date,
    slice_thickness double precision,
    image_orientation_patient text,
    image_position_patient text,
    number_of_frames bigint,
    rows bigint,
    columns bigint,
    photometric_interpretation text,
    burned_in_annotation boolean
);


--
-- Name: COLUMN instances.kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.kind IS 'image, report or other';


--
-- Name: COLUMN instances.patient_pseudonym; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.patient_pseudonym IS 'keyed HMAC of the patient''s identity';


--
-- Name: COLUMN instances.study_instance_uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.study_instance_uid IS '(0020,000D) StudyInstanceUID | VR UI, VM 1';


--
-- Name: COLUMN instances.study_date; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.study_date IS '(0008,0020) StudyDate | VR DA, VM 1';


--
-- Name: COLUMN instances.study_description; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.study_description IS '(0008,1030) StudyDescription | VR LO, VM 1';


--
-- Name: COLUMN instances.patient_age; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.patient_age IS '(0010,1010) PatientAge | VR AS, VM 1';


--
-- Name: COLUMN instances.patient_sex; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.patient_sex IS '(0010,0040) PatientSex | VR CS, VM 1';


--
-- Name: COLUMN instances.series_instance_uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.series_instance_uid IS '(0020,000E) SeriesInstanceUID | VR UI, VM 1';


--
-- Name: COLUMN instances.modality; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.modality IS '(0008,0060) Modality | VR CS, VM 1';


--
-- Name: COLUMN instances.series_number; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.series_number IS '(0020,0011) SeriesNumber | VR IS, VM 1';


--
-- Name: COLUMN instances.series_description; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.series_description IS '(0008,103E) SeriesDescription | VR LO, VM 1';


--
-- Name: COLUMN instances.body_part_examined; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.body_part_examined IS '(0018,0015) BodyPartExamined | VR CS, VM 1';


--
-- Name: COLUMN instances.laterality; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.laterality IS '(0020,0060) Laterality | VR CS, VM 1';


--
-- Name: COLUMN instances.manufacturer; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.manufacturer IS '(0008,0070) Manufacturer | VR LO, VM 1';


--
-- Name: COLUMN instances.manufacturer_model_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.manufacturer_model_name IS '(0008,1090) ManufacturerModelName | VR LO, VM 1';


--
-- Name: COLUMN instances.sop_instance_uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.sop_instance_uid IS '(0008,0018) SOPInstanceUID | VR UI, VM 1';


--
-- Name: COLUMN instances.sop_class_uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.sop_class_uid IS '(0008,0016) SOPClassUID | VR UI, VM 1';


--
-- Name: COLUMN instances.instance_number; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.instance_number IS '(0020,0013) InstanceNumber | VR IS, VM 1';


--
-- Name: COLUMN instances.image_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.image_type IS '(0008,0008) ImageType | VR CS, VM 2-n';


--
-- Name: COLUMN instances.view_position; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.view_position IS '(0018,5101) ViewPosition | VR CS, VM 1';


--
-- Name: COLUMN instances.image_laterality; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.image_laterality IS '(0020,0062) ImageLaterality | VR CS, VM 1';


--
-- Name: COLUMN instances.content_date; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.content_date IS '(0008,0023) ContentDate | VR DA, VM 1';


--
-- Name: COLUMN instances.slice_thickness; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.slice_thickness IS '(0018,0050) SliceThickness | VR DS, VM 1';


--
-- Name: COLUMN instances.image_orientation_patient; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.image_orientation_patient IS '(0020,0037) ImageOrientationPatient | VR DS, VM 6';


--
-- Name: COLUMN instances.image_position_patient; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.image_position_patient IS '(0020,0032) ImagePositionPatient | VR DS, VM 3';


--
-- Name: COLUMN instances.number_of_frames; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.number_of_frames IS '(0028,0008) NumberOfFrames | VR IS, VM 1';


--
-- Name: COLUMN instances.rows; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.rows IS '(0028,0010) Rows | VR US, VM 1';


--
-- Name: COLUMN instances.columns; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.columns IS '(0028,0011) Columns | VR US, VM 1';


--
-- Name: COLUMN instances.photometric_interpretation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.photometric_interpretation IS '(0028,0004) PhotometricInterpretation | VR CS, VM 1';


--
-- Name: COLUMN instances.burned_in_annotation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.instances.burned_in_annotation IS '(0028,0301) BurnedInAnnotation | VR CS, VM 1';


--
-- Name: instances_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.instances_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: instances_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.instances_id_seq OWNED BY public.instances.id;


--
-- Name: label_scores; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.label_scores (
    label_id bigint NOT NULL,
    frame_id bigint NOT NULL,
    score double precision NOT NULL
);


--
-- Name: COLUMN label_scores.score; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.label_scores.score IS '0 to 1';


--
-- Name: labels; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.labels (
    id bigint NOT NULL,
    label_set text NOT NULL,
    label text NOT NULL,
    made_by character varying(64) NOT NULL,
    is_probability boolean NOT NULL
);


--
-- Name: COLUMN labels.made_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.labels.made_by IS 'digest of the model, the set''s wording and the calibration';


--
-- Name: COLUMN labels.is_probability; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.labels.is_probability IS 'calibrated; else a score';


--
-- Name: labels_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.labels_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: labels_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.labels_id_seq OWNED BY public.labels.id;


--
-- Name: manifest; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.manifest (
    key character varying(64) NOT NULL,
    value json NOT NULL
);


--
-- Name: reports; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.reports (
    id bigint NOT NULL,
    instance_id bigint NOT NULL,
    text text NOT NULL
);


--
-- Name: reports_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.reports_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: reports_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.reports_id_seq OWNED BY public.reports.id;


--
-- Name: sentences; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.sentences (
    id bigint NOT NULL,
    report_id bigint NOT NULL,
    "position" integer NOT NULL,
    text text NOT NULL,
    vector bytea NOT NULL
);


--
-- Name: COLUMN sentences.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sentences.id IS 'the id in the sentence index';


--
-- Name: COLUMN sentences."position"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sentences."position" IS 'from 0';


--
-- Name: COLUMN sentences.vector; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sentences.vector IS 'embed_dim x float16, little endian, unit norm';


--
-- Name: sentences_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.sentences_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: sentences_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.sentences_id_seq OWNED BY public.sentences.id;


--
-- Name: workers; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.workers (
    id bigint NOT NULL,
    place character varying(32) NOT NULL,
    pid bigint NOT NULL,
    started character varying(32) NOT NULL,
    expires_at double precision NOT NULL
);


--
-- Name: COLUMN workers.place; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.workers.place IS 'digest of machine, boot and PID namespace';


--
-- Name: COLUMN workers.started; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.workers.started IS 'tells a PID that was given out again';


--
-- Name: COLUMN workers.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.workers.expires_at IS 'seconds since 1970, by the database''s clock';


--
-- Name: workers_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.workers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: workers_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.workers_id_seq OWNED BY public.workers.id;


--
-- Name: archives id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.archives ALTER COLUMN id SET DEFAULT nextval('public.archives_id_seq'::regclass);


--
-- Name: deletions seq; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.deletions ALTER COLUMN seq SET DEFAULT nextval('public.deletions_seq_seq'::regclass);


--
-- Name: files id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.files ALTER COLUMN id SET DEFAULT nextval('public.files_id_seq'::regclass);


--
-- Name: frames id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.frames ALTER COLUMN id SET DEFAULT nextval('public.frames_id_seq'::regclass);


--
-- Name: instances id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.instances ALTER COLUMN id SET DEFAULT nextval('public.instances_id_seq'::regclass);


--
-- Name: labels id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.labels ALTER COLUMN id SET DEFAULT nextval('public.labels_id_seq'::regclass);


--
-- Name: reports id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.reports ALTER COLUMN id SET DEFAULT nextval('public.reports_id_seq'::regclass);


--
-- Name: sentences id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sentences ALTER COLUMN id SET DEFAULT nextval('public.sentences_id_seq'::regclass);


--
-- Name: workers id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.workers ALTER COLUMN id SET DEFAULT nextval('public.workers_id_seq'::regclass);


--
-- Data for Name: alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.alembic_version VALUES ('0003');


--
-- Data for Name: archives; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.archives VALUES (1, '/tmp/archive-0.1.0');


--
-- Data for Name: claims; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: deletions; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.deletions VALUES (1, 'frame', 6);


--
-- Data for Name: erasures; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.erasures VALUES ('f67ab6219679ec63d1f347efede786b5b5f3fe87642682180e78178bdca4be17', 'instance');
INSERT INTO public.erasures VALUES ('24ec596f206a46fbae3fe355a9352294f585f8ea417f779d494c0dac8d616c16', 'file');


--
-- Data for Name: files; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.files VALUES (1, 1, 'CT_small.dcm', 39206, 1800000000000000000, 'indexed', '', '', 'e1e011f16fcad8880fa3fd5d18098df495d7f865', '1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322');
INSERT INTO public.files VALUES (2, 1, 'MR_small.dcm', 9830, 1800000000000000000, 'indexed', '', '', '7584063b3dd3a420439aac35b3e8c55282e04325', '1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457');
INSERT INTO public.files VALUES (3, 1, 'cine.dcm', 3626, 1800000000000000000, 'indexed', '', '', '9838feac86f3126888f49a0bc4bc0f9cb9b16743', '1.2.3.4.4');
INSERT INTO public.files VALUES (5, 1, 'report.dcm', 1328, 1800000000000000000, 'indexed', '', '', '136c9bc7182230905ac5dd397420d5a8340627bf', '1.2.3.4.6');
INSERT INTO public.files VALUES (6, 1, 'copy of MR_small.dcm', 9830, 1800000000000000000, 'indexed', 'duplicate', 'the same bytes as another file of 1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457', '7584063b3dd3a420439aac35b3e8c55282e04325', '1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457');
INSERT INTO public.files VALUES (7, 1, 'broken.dcm', 3000, 1800000000000000000, 'rejected', 'pixel-decode', '1500 bytes of pixel data, expected 8192 for 1 frames of 64 x 64 x 1 samples of 16 bits', NULL, NULL);


--
-- Data for Name: frames; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.frames VALUES (1, 1, 1, '\xcd29a92983a3b92c86adb9289ba959a7cda9122bbd2e29b2302679ac87949fafa22d382de62bcaab592b002d082ca82e75ab1610a9296b9c13a25da85ca141a8c728712dadabbf2d9fa75c9d85229b25c42eb2acc720ea2016280ea94f2459a7adaf94a5ef2e23a908286826671f1c893aa887b0adabdca8c79c6b20e324f62e56b01aae55a1c42e5923b7a5adabd514b73164282ea7a196932638a9552d8327552db2281620d52cd81741a438ade2253320eaac41b0b22883a3852e962c4a270099a2adb02da1268024942d3f293e2630a2d92eea2c372e30222e2f8f28db25f6ae24a864a44aa348ac372acaab86a91c1d91a7e2a1879c5ca594adb9301525bfa51620132ebdae0fa4a1222eab67af8caed5289d98852ea826a1aa5c25ca97752b0e293ca7b994f4af23219d282e27d80fb230642c56204d2975b33fa9e92563a967078caa8dadbcaba2adf49fe328e32c3a2c87a41525072d93a656ac132691a73cab0898552920a72329e2254c2a31a93129b920631d0b2bdc287dae8028ab24912f79a4302aa9195aaadc282e9f2eafbc2b4625f92415b12093b2aca9a92c28642883a700290ca278a145aadc2861aef6aa91ab8028bf2d782d76a276aa61aae21937aaa4289a2a8fb061262c1c9d2415ade92900adef16b92cb2ac7d26082c2c28d2aa462d29aa8d29a2255a261da46f2ac62941248d290f283ab08d21');
INSERT INTO public.frames VALUES (2, 2, 1, '\xaa282cae2a24851910a32aacc48ca1a4baa9b12594ab3c2733a8caaa2f28feaa7528a7ae092ec3151cad1dacb82ef0a8b02edd2d6823792785a936a98cae7c29222b612e332f1321a8adf9202a2fb125e323eb2feea946aa5021d6a86ca4f6ae13ad1aae59ad5fa8331c0ca8bba858aa3c133fad842e7ea8c82bcdac0a25c325c0279e2ad12b8ba7b2a83619262cb8aa12aa4829cd2c25a54e28b2a852207b269cab07af742d6328102c822fb29ceea52a27483179abe42656a77baaf62a7ea8b1993f29ed2a79970a21c329fe2a40accb25aa24d12fb0a68fb0e42a1c297b9ab2ac6c3095aa681f03182326842abb2ca82d9721252d4d1fcaaa3ca407afed2e3c9c4e9cee2db02ebaa925a994a7eead3fada19cb82a1d2446aaeea975a403a8c3a9452b3cafdaa75fafd32ac4ac52a8aea72d2d03ac562cf930ddada71a381c231a03a81aaa462e7c9d59a9cb29e42acb25e7a8cb1d97ad0a2d95aef99c3c302f30e49e4f9ed4ad092af6a294af1226362dd630f42b9c2b8ead12ae792b23a2c325e42e1ca5d326dd29d4a9692e1ca5caaae4a66926842aa5ab952672aa58a2baa5d62c7c291a2ac0aba52b4ea06ba9baa9ed269c2b952ed42d3fa53ca0612219a87e282fa452ac872c36a1d6285fb01ca56c3071af9f2d1d1425a9d4a5b82a102b8ea900a2622d9ea21da8a1a8142819209e261ca9bb2c2525ba29b72b22af');
INSERT INTO public.frames VALUES (3, 3, 1, '\xb5268830712cf629652d61283fa9141e8a2f4e2d2fad8028682e0e2c102b43a86c8b3aa6062c20ada2a9cba6edab5cab3f252f2714aa5926deafbd208fa86dad1caefa24782c78b07faa2b2ab0a3652d0eac182b2723082b46a9511eb5acfa9c69b00da64a2e18ab0e2871ac55ab02a969a48bad102388a8f22a15a8192dcb2e64a780a061ae462f9f1c242a3b3051a2d0254d2b6124dea7fa204324b526882c05a237a9b129cc2c1528102ffd2da1af5d25cfabeba8eaaa64af51aa522ccb220d2ede27ad1af2281fa76c2fc01f889c6d2180ac282d8ba952a4739bf2aa06a8c8ad1d2c2f9dee2d9fac1d2c3b2c1c26eea124aa962a362f93a56114422255af0827421e14ae062cea2e9fac5da9832d97a4c02f6124ae2c19adaaa501abe7290e3064ab2fa97fa678a8cf2b27af15a88830fd298ba9d725e729741d2f19b5b02c2cc5a419a92c2843a8fa28e2aa9aa5242a5d25cc28712446279e228aab5d25db16b9ad839f1d2024ac24a80eac5d1588ac112d71ace79dccb0a62846ad15a061ae78a4612693a9a2a902b119a90e287ba7c0b14e296126712cc02b9aa5a2a1282528a96128b0a7d0211caa19a1db221f2b599eee21142a0d2e2ba68eae80a81da8fa28732371b078a09e22ee2db0ab15a84b3088b0ed233428aea824206d1d69acd0299e2e782ed7a9d0a92001cfab432cd02514a27128cfab1c26fa241520');
INSERT INTO public.frames VALUES (4, 3, 2, '\x79262630bd2cf9256a2d6a2836aa459a892f012e7aab7929902ec42c012b36aadba46aa4b52ca7ab9fa890a872ac90a83d29792801ac6a2654af2e246aaae3acdbace31d5b2d97b010ab0828e31f012c5bac172ca624542b72aa9f22aeac89a33db072a62e2d88acdb28f2abbdaae3a31fa898af531cbd9cae2c3dab2e2d4c2f72a5ea9c01afae2dea20722b533036a33d26b5290124c4a84c20e32518232e2e721d08aa9f28972cb627ea2d362f81ae0825d4ab2eac01aa08aff2aa632d2e26b52d102563a6cc2872a5a72f5ba6631ff21fb6ab352c72a808a82e24e3a944a1bdacd4294ca1a72e97ac622cd42b892735a8e3a63d2b3d2fc5a7d41fdb241faef228d49918afe329a62d54ad4ca8542ddba2982f4c285b2d3dada6a836aa262c722f97aab5a5aea6a7a74c2ca7afcca9452fea2917a94c25e329c51d819cb5b0ea2a08a881a8542981a9442879aa17a23d29a624632a1f272626881c17ac6a1d4c1481aec5a2729d44ac98a708ab4c9172abc52dccacf922bdb02e27c5ae89a718afcca8a625dba808aae3b0cca58927e3a488b1972935285b2b082da7a708a5b6275ba6ea2817aad41b5babc4a8081ed42a3598b524bd289f2ee3a672add4a7e3a82e26d4294cb0e3a38121632ddbaa44a93530aeb01025b62b10a8981f6a2144ac9028972d792e6aaa10acbd9a72ac102ca624f9a5452af2aa812863279021');
INSERT INTO public.frames VALUES (5, 3, 3, '\x9f28ed2f6e2bdc251e2dd1286eabed18ef2e2c2d4bacf424152eb22df42867acc3a3eda7812dcaac15a675a86eab73a93a29192728ab752404af5928c3a898acdfac751c8a2c98b09fac8d22fb9c5224b0aafb2bf49cb22938aa5e257aad6ea7f4b017a1252d31ae192b67ac1caa2aa20eaa6eaf0ca09fa4a72c3faa192f4b30b4a7a29e8aaf022dd51dcc2a602f69a24b2881295b22d5a9a29ed52115269b2eaba17ca89629502d1c26f92dc02d9dada42528ac7cab70aa13b044acda2ac025da2e579de425442760a40c3081a9969d442319ab9f2c81a998a43d20f9a936a7daae192b19a7732d73ade82a1c2aed24a4a1b4a3702aa42d60a3a6a3f925a2ae28283f228aaf6e2b8d2e2cad77aaed2c60a3d52d702a962db5ac7faabcac282c3d30f6aaeda360a7caa89f2cc3afd8a8382e6e2b2fa8462a752c1318602375b0812919a77fa68a28e1a2672821ac73a11e29811d772a3d28312aa62349a9601f1aa086ae0096b72254aa50a97ca8882552abf42c02ad9ba2cab04929e1ae15a696ad6eabdf1494a6b5a84bb0a6931029c7a9b2b16e27fb23592c592c36a3c3a7522309a18d268aa8dc2198acefa68622912c13a4ae24bc28172df2a113ac59a8b5a88a28fb248ab088a16098602f1caab4ab6030cab0ed1f442b361f23267f8a25adc323a42d092d05ac60abed246eacd5298a2313a02f2828ab7528492907a2');


--
-- Data for Name: instances; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.instances VALUES (1, 1, 'image', '39119b684c95cf1a2773942f4a13d683', '1.3.6.1.4.1.5962.1.2.1.20040119072730.12322', '2004-01-19', 'e+1', 0, 'O', '1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322', 'CT', 1, NULL, NULL, NULL, 'GE MEDICAL SYSTEMS', 'RHAPSODE', '1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322', '1.2.840.10008.5.1.4.1.1.2', 1, 'ORIGINAL\PRIMARY\AXIAL', NULL, NULL, '1997-04-30', 5, '1.000000\0.000000\0.000000\0.000000\1.000000\0.000000', '-158.135803\-179.035797\-75.699997', NULL, 128, 128, 'MONOCHROME2', NULL);
INSERT INTO public.instances VALUES (2, 2, 'image', 'ec8a134c491dacf07bd48b125d999863', '1.3.6.1.4.1.5962.1.2.4.20040826185059.5457', '2004-08-26', NULL, NULL, 'F', '1.3.6.1.4.1.5962.1.3.4.1.20040826185059.5457', 'MR', 1, NULL, NULL, NULL, 'TOSHIBA_MEC', 'MRT50H1', '1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457', '1.2.840.10008.5.1.4.1.1.4', 1, 'DERIVED\SECONDARY\OTHER', NULL, NULL, NULL, 0.8, '1.0000\0.0000\0.0000\0.0000\1.0000\0.0000', '-83.9063\-91.2000\6.6406', NULL, 64, 64, 'MONOCHROME2', NULL);
INSERT INTO public.instances VALUES (3, 3, 'image', '000b0aff28c586b740d68bd5b0430651', '1.2.3.4.4.1', '2026-01-02', NULL, 61, NULL, '1.2.3.4.4.2', 'US', NULL, NULL, NULL, NULL, NULL, NULL, '1.2.3.4.4', '1.2.840.10008.5.1.4.1.1.7', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 3, 32, 32, 'MONOCHROME2', NULL);
INSERT INTO public.instances VALUES (5, 5, 'report', '000b0aff28c586b740d68bd5b0430651', '1.2.3.4.4.1', NULL, 'OFFIS Structured Reporting Templates', NULL, 'O', '1.2.276.0.7230010.3.1.3.1787205428.166.1117461927.11', 'SR', 1, 'IHE Year 2 - Simple Image Report', NULL, NULL, 'Kuratorium OFFIS e.V.', NULL, '1.2.3.4.6', '1.2.840.10008.5.1.4.1.1.88.11', 1, NULL, NULL, NULL, '2005-05-30', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);


--
-- Data for Name: label_scores; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.label_scores VALUES (1, 1, 0.90869);
INSERT INTO public.label_scores VALUES (1, 2, 0.032985);
INSERT INTO public.label_scores VALUES (1, 3, 0.094913);
INSERT INTO public.label_scores VALUES (1, 4, 0.056672);
INSERT INTO public.label_scores VALUES (1, 5, 0.093335);
INSERT INTO public.label_scores VALUES (2, 1, 0.053182);
INSERT INTO public.label_scores VALUES (2, 2, 0.929795);
INSERT INTO public.label_scores VALUES (2, 3, 0.82488);
INSERT INTO public.label_scores VALUES (2, 4, 0.871405);
INSERT INTO public.label_scores VALUES (2, 5, 0.818772);
INSERT INTO public.label_scores VALUES (3, 1, 0.038128);
INSERT INTO public.label_scores VALUES (3, 2, 0.03722);
INSERT INTO public.label_scores VALUES (3, 3, 0.080207);
INSERT INTO public.label_scores VALUES (3, 4, 0.071923);
INSERT INTO public.label_scores VALUES (3, 5, 0.087893);


--
-- Data for Name: labels; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.labels VALUES (1, 'modality', 'CT', '9422c7d8b6dcd77bd2d94a940a144011c484b3aece958b4637d775d2c70838d4', false);
INSERT INTO public.labels VALUES (2, 'modality', 'MR', '9422c7d8b6dcd77bd2d94a940a144011c484b3aece958b4637d775d2c70838d4', false);
INSERT INTO public.labels VALUES (3, 'modality', 'radiograph', '9422c7d8b6dcd77bd2d94a940a144011c484b3aece958b4637d775d2c70838d4', false);


--
-- Data for Name: manifest; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.manifest VALUES ('store_id', '"70a60bf13bec4f0cafceae490431bbc2"');
INSERT INTO public.manifest VALUES ('model', '{"name": "medlens-base", "source": "medlens-base", "weights_sha256": "66479d957aef908a4e33561be6ab40abdaa391745d42988f906a4f1800f78d62", "embed_dim": 256, "preprocess": {"size": [160, 160], "mean": [0.498, 0.498, 0.498], "std": [0.502, 0.502, 0.502], "interpolation": "bicubic", "resize_mode": "longest", "fill_color": 0}, "render_profile": {"name": "header", "windows": {}, "percentiles": [0.5, 99.5]}}');
INSERT INTO public.manifest VALUES ('pseudonym_key_check', '"9c4bb7bc12d42163be8d5cf2f9f0acf7a7a13db06cd36417622823e59f64b39f"');


--
-- Data for Name: reports; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.reports VALUES (1, 5, 'Small left pleural effusion. No pneumothorax.');


--
-- Data for Name: sentences; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.sentences VALUES (1, 1, 0, 'Small left pleural effusion.', '\x18aa6e22b52bde2d759f2828f028dd280130d7ab8324efadf7973aa530226d2c8c23e82c30a843add82c84a7c419ecaa07ae98ac18a8c7a9a42752a8aa2df228d829f9a7ebaac2a57928f2ac41aac2ae902d24b1d42cee2041a7e426922a4ea976a617a4ce2aa4a8e01c2cacec3031af2dad8830dd1c10ac931d7f270b278b2409acbd9cba2638a9f4aa232d9aa9c8a10d2db02926a6ad255d1da0a02e2dd42cbf2a8b27beabf32cab29e0a185b158a62faaada5a1a702ae092f222111b00227b8ac7cad96aa9f2a86ae1a2a092bff2d30b0782473ac062afda3d42e6f269c260caca4a6272eaf2d0416b7274b20acabbd2c4625752b532ddf2feaa9dc2ca0aea7a5232a8b2d1ab0f419bf2b572938af3b9f81a9f6ad182e50aa122b71278623e32890af0cad42af1121b4997e28462bd5ae762944aa67ad42af592a1fa4beab95aa92a814289ea45a285fa87daff6205f28cda45d2d021eeda8302106ac3526cf20ca2ffaa65e2a79a8592738a73ca4f3a7abb0291ea8ac1d28162f09adcf20142c5cafb8ac62a997a99a2b97ad8ea5da21a92c402b80aa23acbcac4e2dcb2008a70321f3a6869ab627eb1e532564259c17f22982ad0dac1c2bb02f0d1246a6e69c2ca09829b829fdae69ab3e23882edead0babe528d7a7362b3e273b2868228e27932acdacaf296628a0a72eac962cd6288e239e24cd2d76ae6cadabab362a');
INSERT INTO public.sentences VALUES (2, 1, 1, 'No pneumothorax.', '\x1327861ebb2d2e253caa0d18821900a8609864ad4ea4ee236eac5f1d222a492fb125d12c5bad55a16f2c22aca8aaa82aeba23a24d5aaf69fd72adeabd82d592836a483aa24a023a7a0245c9c751d0aad4829d7a739a562aacdab81a41ea7372966a504ab0a28612850add39c03301db053a8ad3283285f2de31a18a944acbe2ccaa5edadd0a9faadbb2c482323a934957d279b290bac01a215284312192cbea6212b0021cba3072f862ceaa652ac4fb0a41e39a182a45eafaa220e1d8c2b7f2492ad2824a8aada2dd7a9212ca729412405acaf29fb20382d05b0a331aa2414a8c62bd5ab942f302d192b7e2c0c2c75ae612abe2d302ef326881fbba8092ec1ae691c8b253031b1a712ae9f26422ff5a7b32bd502b3ae1e2b60ace12d82ab8fa0b1aa92b0acac131cf12a94a5cf2b2429d3208ca8dba5ffa8dfb0c9196927ba2752ae96ab99a9e831fbaecda59eaaa3175aa8ff2e15a4972c99adeba83face59260ac4c2f5aa905a1fca48cabeaa773a8f2ab0aaa7eace4a9b7a5c22786ac09a9ffa43729142162adb1274723ada68da8742c4b2e1b287bacf42c0cad7c2c3ba9a3a70aaa54a450289b2c4828f22b6ea7621c662c02abafa5af208ca7a82db5a6dfa4c81e0f305aa904a7f820d226b924549c2ba4322bffad442a5aaa97a5f7ac6fa6e32b24ac382ec22b52ad1f987e2e11a933246ba8882f4da8d9aed2adbda0');


--
-- Data for Name: workers; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Name: archives_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.archives_id_seq', 1, true);


--
-- Name: deletions_seq_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.deletions_seq_seq', 1, true);


--
-- Name: files_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.files_id_seq', 7, true);


--
-- Name: frames_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.frames_id_seq', 6, true);


--
-- Name: instances_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.instances_id_seq', 5, true);


--
-- Name: labels_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.labels_id_seq', 3, true);


--
-- Name: reports_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.reports_id_seq', 1, true);


--
-- Name: sentences_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.sentences_id_seq', 2, true);


--
-- Name: workers_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.workers_id_seq', 1, true);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: archives pk_archives; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.archives
    ADD CONSTRAINT pk_archives PRIMARY KEY (id);


--
-- Name: claims pk_claims; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.claims
    ADD CONSTRAINT pk_claims PRIMARY KEY (archive_id, path);


--
-- Name: deletions pk_deletions; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.deletions
    ADD CONSTRAINT pk_deletions PRIMARY KEY (seq);


--
-- Name: erasures pk_erasures; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.erasures
    ADD CONSTRAINT pk_erasures PRIMARY KEY (digest);


--
-- Name: files pk_files; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.files
    ADD CONSTRAINT pk_files PRIMARY KEY (id);


--
-- Name: frames pk_frames; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.frames
    ADD CONSTRAINT pk_frames PRIMARY KEY (id);


--
-- Name: instances pk_instances; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.instances
    ADD CONSTRAINT pk_instances PRIMARY KEY (id);


--
-- Name: label_scores pk_label_scores; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.label_scores
    ADD CONSTRAINT pk_label_scores PRIMARY KEY (label_id, frame_id);


--
-- Name: labels pk_labels; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.labels
    ADD CONSTRAINT pk_labels PRIMARY KEY (id);


--
-- Name: manifest pk_manifest; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.manifest
    ADD CONSTRAINT pk_manifest PRIMARY KEY (key);


--
-- Name: reports pk_reports; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.reports
    ADD CONSTRAINT pk_reports PRIMARY KEY (id);


--
-- Name: sentences pk_sentences; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sentences
    ADD CONSTRAINT pk_sentences PRIMARY KEY (id);


--
-- Name: workers pk_workers; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.workers
    ADD CONSTRAINT pk_workers PRIMARY KEY (id);


--
-- Name: archives uq_archives_root; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.archives
    ADD CONSTRAINT uq_archives_root UNIQUE (root);


--
-- Name: files uq_files_archive_id; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.files
    ADD CONSTRAINT uq_files_archive_id UNIQUE (archive_id, path);


--
-- Name: frames uq_frames_instance_id; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.frames
    ADD CONSTRAINT uq_frames_instance_id UNIQUE (instance_id, frame_number);


--
-- Name: instances uq_instances_file_id; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.instances
    ADD CONSTRAINT uq_instances_file_id UNIQUE (file_id);


--
-- Name: instances uq_instances_sop_instance_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.instances
    ADD CONSTRAINT uq_instances_sop_instance_uid UNIQUE (sop_instance_uid);


--
-- Name: labels uq_labels_label_set; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.labels
    ADD CONSTRAINT uq_labels_label_set UNIQUE (label_set, label);


--
-- Name: reports uq_reports_instance_id; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.reports
    ADD CONSTRAINT uq_reports_instance_id UNIQUE (instance_id);


--
-- Name: sentences uq_sentences_report_id; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sentences
    ADD CONSTRAINT uq_sentences_report_id UNIQUE (report_id, "position");


--
-- Name: ix_claims_worker_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_claims_worker_id ON public.claims USING btree (worker_id);


--
-- Name: ix_files_content_hash; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_files_content_hash ON public.files USING btree (content_hash);


--
-- Name: ix_files_size; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_files_size ON public.files USING btree (size, mtime_ns);


--
-- Name: ix_files_sop_instance_uid; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_files_sop_instance_uid ON public.files USING btree (sop_instance_uid);


--
-- Name: ix_instances_body_part_examined; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_instances_body_part_examined ON public.instances USING btree (body_part_examined);


--
-- Name: ix_instances_modality; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_instances_modality ON public.instances USING btree (modality);


--
-- Name: ix_instances_patient_pseudonym; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_instances_patient_pseudonym ON public.instances USING btree (patient_pseudonym);


--
-- Name: ix_instances_series_instance_uid; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_instances_series_instance_uid ON public.instances USING btree (series_instance_uid);


--
-- Name: ix_instances_study_instance_uid; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_instances_study_instance_uid ON public.instances USING btree (study_instance_uid);


--
-- Name: ix_label_scores_frame_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_label_scores_frame_id ON public.label_scores USING btree (frame_id);


--
-- Name: claims fk_claims_archive_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.claims
    ADD CONSTRAINT fk_claims_archive_id FOREIGN KEY (archive_id) REFERENCES public.archives(id);


--
-- Name: claims fk_claims_worker_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.claims
    ADD CONSTRAINT fk_claims_worker_id FOREIGN KEY (worker_id) REFERENCES public.workers(id) ON DELETE CASCADE;


--
-- Name: files fk_files_archive_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.files
    ADD CONSTRAINT fk_files_archive_id FOREIGN KEY (archive_id) REFERENCES public.archives(id);


--
-- Name: frames fk_frames_instance_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.frames
    ADD CONSTRAINT fk_frames_instance_id FOREIGN KEY (instance_id) REFERENCES public.instances(id) ON DELETE CASCADE;


--
-- Name: instances fk_instances_file_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.instances
    ADD CONSTRAINT fk_instances_file_id FOREIGN KEY (file_id) REFERENCES public.files(id);


--
-- Name: label_scores fk_label_scores_frame_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.label_scores
    ADD CONSTRAINT fk_label_scores_frame_id FOREIGN KEY (frame_id) REFERENCES public.frames(id) ON DELETE CASCADE;


--
-- Name: label_scores fk_label_scores_label_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.label_scores
    ADD CONSTRAINT fk_label_scores_label_id FOREIGN KEY (label_id) REFERENCES public.labels(id) ON DELETE CASCADE;


--
-- Name: reports fk_reports_instance_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.reports
    ADD CONSTRAINT fk_reports_instance_id FOREIGN KEY (instance_id) REFERENCES public.instances(id) ON DELETE CASCADE;


--
-- Name: sentences fk_sentences_report_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sentences
    ADD CONSTRAINT fk_sentences_report_id FOREIGN KEY (report_id) REFERENCES public.reports(id) ON DELETE CASCADE;


--
-- PostgreSQL database dump complete
--


