"""Words that people are named and institutions are called, but that reports and descriptions need.

`privacy.scrub` does not cut these when they stand alone. Every word here is a name that may stay in a text, so the list
holds ordinary words of radiology and of everyday English (and a few of German, French, Spanish and Italian protocols),
no given names and no eponyms. Lower case, no accents.
"""

from __future__ import annotations

_ORDINARY = """
abd abdome abdomen abdominal abdomino abnormal abscess absent accident acute adc adenoma adrenal adult after age aif
airway all and angio angiogram angiography angle ankle anon anonymised anonymized anonymous ant anterior aorta aortic
apex apical apo appendix arch area arm arterial artery arthritis asl assessment atelectasis axial axilla axis baby back
band base beam becken before bein below bid big bilateral bile biopsy black bladder block blood bmi body bold bone bony
bottom bow bowel box brain branch breast bright bronchial bronchus brown brust brustkorb burn cabeza cadera cal
calcification calf calibration cancer cap carcinoma cardiac cardiology cardiomegaly care carotid case catheter cavity
cct ccta ced cell center central centre cerebral cervello cervical change chest child children chronic clear clinic
clinical clip cold colon columna comparison complete complex consolidation contour contrast control cor cord coronal
coronary corps cortex cortical cra crane cross cta ctp cuello cuisse cxr cyst cystic day dce deep deformity
degenerative del delayed demo den dense density department der des device diagnosis diagnostic diaphragm dick die
diffuse disc disease disk distal dixon dome dose dr dra dsa dsi dti dual duct dwi early echo edema effusion elbow
embolism emergency end enhanced enhancement enlarged epaule epi esophagus exam examination eye face false fat fatty
female femme femoral femur few fibrosis field film finding findings fine finger first flair flash flat flow fluid focal
follow foot for forearm foreign fossa foundation fov fracture frame free fresh from frontal fse function fungal fusion
fuss gall gallbladder gas gastric gate gehirn general genou gland glass good gradient graft gray gre great green grey
groin gross ground group half hall hals hanche hand hard haste hat head healing health heart held hematology hemorrhage
hepatic hernia het high hilar hilum hip history hold hospital hrct hueft hueso human humerus hyper hypo image images
imaging impression ind indication inf infant infarct infection inferior infiltrate infiltrates initial inner inpatient
institute institution intact international interval intestinal joint kidney kind klein knee knie knot kopf kub kurz
lang large las last lat late lateral lbs leber left leg lens les lesion lesions level ligament light limb line lines
links little liver lll lobar lobe local location long los loss low lower lul lumbar lump lung lunge lungs lymph mag
main major male mammo mammogram mammography man mandible mano many marked marrow mass masses maxilla may md mds mean
med mediastinal mediastinum medical medicine men meniscus metal mid middle mild minor mip moderate monitor month mother
motion mount mpg mpr mprage mra mrcp mri mrs mrv msc multiple muscle name narrow nasal nat nativ ncct nec neck neural
neurology new nieren nodal node nodes nodule nodules non none normal north nose note notes nuclear obese oblique
obstruction old one onset opacities opacity open oral orbit osso other outpatient ovary pain pancreas part partial
patchy patient patients pdw pecho ped pediatric pelvic pelvis per perfusion peripheral person pet petct phantom phase
phd physician pied pituitary place plain plane plate pleural pneumonia pneumothorax pole poor port portable portal pos
position positive post posterior poumon power pre present previous prior procedure prof prominent prone prostate
protocol proximal public pulmonary pump pupil qa quality quick rad radial radiograph radiographs radiologist radiology
radius rapid rare ray read reading rechts rectal rectum reed ref region regional renal report res research resolution
rest results rib ribs rich right rim ring rise rll rml rodilla root rotation round routine row rul run sacral sag
sagittal saline sample samples san scan scans scapula schadel schulter science sciences scout screen screening second
section sella sen septum series service services severe shadow sharp short shoulder shunt side sign sinus sir site size
skin skull slice slight slow small smooth soft solid south space spair spgr spinal spine spleen spot sr stable standard
ste stem stenosis step sternum stir stomach stone strain stress strong structure study subject subtle sup superior
supine surface surgery surgical suspected swelling swi system tail temporal tender test testa testis tete the then
there thick thickening thigh thin third thoracic thorax three thrombus thyroid tibia tip tirm tissue toe tof tomography
tongue top torace torso total tra trace trachea tract trauma tree trial true tse tts tube tumor tumour two ulna ultra
ultrasound und under une union unit university unknown upper urinary urology uterus valve van vascular vein veins
venous ventricle ventricular vertebra vertebrae vertebral vessel vessels vibe view views virus vital volume volunteer
von wait walk wall ward warm water wave weeks west white whole wide will wirbelsaule with without woman women work
wound wrist xray year young zone zum zur
"""
_NO_NAMES = """
abdomen anonymised anonymized anonymous brain breast cervical chest cr ct cta cxr dx flair lumbar mammo mg mr mra mri
neck nm patient pelvis pet phantom pt qa rf routine shoulder skull spine sr subject test thorax unknown us volunteer xa
xr xray
anonymus deidentified dummy qc redacted removed
"""

# Negation and side: no cut may take one of these alone. All are ordinary words too.
_NEGATION_AND_SIDE = """
no not non none never nor neither without absent absence negative nil denies left right bilateral bilaterally both
leftward rightward lt rt kein keine keinen keiner kinerlei nicht ohne nie weder noch links linke linken linker
linkes rechts rechte rechten rechter rechtes beidseits pas sans aucun aucune ni gauche droit droite sin ningun
ninguna ninguno izquierda izquierdo derecha derecho bilaterales senza nessun nessuna nessuno sinistra sinistro
destra destro sem nenhum nenhuma nao esquerda esquerdo direita direito geen niet zonder inga ingen inget utan inte
vanster hoger ikke uden uten venstre hojre hoyre brak bez lewy lewa prawy prawa нет не без левый левая левое левой
левого правый правая правое правой правого δεν οχι χωρις αριστερα αριστερο αριστερος δεξια δεξιο δεξιος לא אין ללא
שמאל ימין لا لم ليس بدون غير ايمن ايسر يمين يسار نیست چپ راست नहीं बिना बाएं दाएं
"""
# Words of clinical texts that are not names: units, techniques, and words that occur where names do.
_CLINICAL = """
abdominopelvic ablation abnormalities abnormality abs ac acuson ad additional adjacent agfa ah al alignment allergic
allergy aloka also alt am an anaesthesiology anastomosis anesthesiology aneurysm anonymus another antegrade
anterolateral anteroposterior any ao ap apparent appearance appears application approximately aq are arrow arrows as
asd aspect assess associated asthma at atrial atrium atrophy attention aux av available average ax axillary ba
barium bases basilar be because been being beneath benign beside best between bi biliary blunt bones borderline both
bowels brachial bradycardia bronchi bruker but bx by ca calcific calcified can canal cancers cannula canon
cardiothoracic carestream caudal cavitary cavitation cc cecum cerebellum cerebrum cervicothoracic cf changes
cholecystectomy claustrophobia claustrophobic clavicle clinically clips cm cn co collapse collection colonic color
colour common compared compression concern concerning considered consistent contact continued contours corporation
correlation costophrenic cough could course cs cv cva da daily date days de decreased degeneration deidentified dem
dementia demonstrate demonstrated demonstrates demonstrating derived dermatology despite developed development dg di
diabetes diabetic diagnosed dialysis diameter difficult dilatation dilated dimension discharge discussed displaced
displacement dm do does dorsal dot drain du due dummy during dv dw dx dynamic dyspnea each ed edematous een eg ein
eine either el electric electronics elekta elevated elevation em emphysema endocrinology endoscopic endotracheal
enteric enteroclysis enterography entire epigastric er es esaote especially est et etiology evaluate evaluation
evidence evident ex example excluded expanded ext extending extension extensive extent external extremities
extremity fa faint fascia fb feature features feeding fever fh fibroid fibrous fields figure filling fissure fl
flank fn followup fs ft fu fuji fujifilm full fx ga gadolinium ganglia ganglion gastroenterology gastrointestinal gb
ge gi given gli gm gmbh go gr granuloma grossly gt gu gy gynaecology gynecology had haematoma haemorrhage hamamatsu
has have having hb he healthcare healthineers hematoma hemidiaphragm hepatomegaly her herniation heterogeneous
hiatal his hitachi hologic homogeneous hr hu hx hydronephrosis hyperdense hyperinflated hyperinflation hypertension
hypodense hypoinflation ia ic icu id identified ie if ii il iliac im imaginary immediate implant implants improved
in inc include including increase increased indicate indicated indicating inflation inguinal injection injury
insertion interstitial interventricular intra intracranial intrahepatic invasion involving io ip ir is ischemia
ischemic isodense it its iu iv iw ja je kg km known kodak konica kv la laa lab lad laminar lao laparotomy larger
largest lateralview lc le leads leaflet less likely linear lipoma lm lo lobes lobulated localiser localizer located
loculated longitudinal look loop loops ltd lucency lucent lv lymphoma ma magnetic magnification magnitude marconi
markings maternity matter max maximum mb mc measured measures measuring medison medullary membrane meninges
meningioma metastases metastasis metastatic mi midline mildly min mindray minimal minolta ml mm mn monochrome more
mosaic most motor ms mt mucosa multi multifocal muscles mv my myocardial myocardium nasogastric nb nd ne near
necrosis neoplasm nephrology nerve nerves neurosurgery neusoft ng nicu nipple nl no nobody noname nonspecific norm
normally not noted nr ns nurse nursing nv ob observed obstetrics oc occlusion od of ok older on oncology only op
opacification ophthalmology opp opposed or original orthopaedics orthopedics os osseous osteoarthritis osteophytes
osteoporosis ot ou our outside over overall overlying pa pacemaker pacer paediatrics palette palliative palsy
paraspinal parenchyma patella pathologic pathology pattern pc pd pe pediatrics percutaneous perforation
peribronchial pericardial perihilar peripherally peritoneal ph philips physicians pi picc picker picu pl placement
plan planes planmeca pleura plexus pm po portion possible possibly postcontrast postoperative pp pr practitioner
pregnancy pregnant preoperative presence presented presenting pressure primary probable probably process progress
progression projection proton ps psychiatry pt pulmonology pulse px qc quadrant question ra rai rao rather rca re
reaction real reason recent recommend recommended recon reconstruction redacted reduction relative remain remaining
remains removal removed resection resolved resonance respiratory retro retrocardiac retrograde retroperitoneal
reveal revealed rgb rheumatology rn ro rotated rs rv rx sa sacrum same samsung sc scar scarring scattered sclerosis
sclerotic scoliosis sd se secondary sectra seen seizure sequence severity sh shimadzu showing shown shows si siemens
significant silhouette similar since single sirona sl slightly sn so solitary somewhat source sp splenic spondylosis
ss st static status std stents steroid still stools structures subclavian subcutaneous subpleural suggest suggested
suggesting suggestive suggests suspicious suture sutures sv sw sx symptoms syndrome systems ta tb td te technical
technique technologies temperature tendon terminal th that their these this though through ti tibial time tl tm tn
to today tomogram tonsil tortuous toshiba tot tp tr tracheal transplant transverse treated treatment tt tu
tuberculosis tubes tubular tumors tx typical uk ultrasonography un unchanged underlying unfolded unremarkable up
urgent us used using ut uterine va valves varian variant vasculature vb vd ve ventral very vi visible visualized
volumes vs vt was wd we wedge well were when where which while whose wi widened widening within wm wo worse would wt
xl ybr years yes yo yr yrs zn zu
"""

# What pictures show: after MR or DR in capitals these are not names.
_PICTURED = """
abdomen aorta arm back bone bowel brain breast calf chest colon elbow eye face femur finger fingers foot hand hands head
heart hip humerus joint kidney knee leg limb liver lung mandible neck orbit pelvis prostate rib ribs shoulder skull
spine spleen thigh thumb toe toes tongue tooth trunk vein wrist
"""
# Words of two letters that begin sentences: a family name that equals one of them is not removed when it is alone.
_FUNCTION_WORDS = """
al am an as at be by da de di do du el es et go he if il im in is it la le lo me my ne no of on or so to un up us we
"""

# Abbreviations with dots that are not initials.
_DOTTED = "am ap ba bs cc ct dr eg gi gu id ie im iv le lt md mr ne no or pa ph pm po pr qd re rt sc uk us vs"

POLARITY_WORDS: frozenset[str] = frozenset(_NEGATION_AND_SIDE.split())
ORDINARY_WORDS: frozenset[str] = frozenset(f"{_ORDINARY} {_CLINICAL}".split()) | POLARITY_WORDS

DOTTED: frozenset[str] = frozenset(_DOTTED.split())
PICTURED: frozenset[str] = frozenset(_PICTURED.split())
FUNCTION_WORDS: frozenset[str] = frozenset(_FUNCTION_WORDS.split())

# Nobody has these names: a "name" with one of them is a label (CT^CHEST, PHANTOM^QA) and gets no whole-name phrase.
NO_NAMES: frozenset[str] = frozenset(_NO_NAMES.split())
