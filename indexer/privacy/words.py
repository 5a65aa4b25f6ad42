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
"""

ORDINARY_WORDS: frozenset[str] = frozenset(_ORDINARY.split())

# Nobody is called these: a "name" with one of them is a label (CT^CHEST, PHANTOM^QA), and gets no whole-name phrase.
NO_NAMES: frozenset[str] = frozenset(_NO_NAMES.split())
