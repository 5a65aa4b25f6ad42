"""Family and given names that tell a title in capitals from a modality: MR BROWN, but MR BRAIN."""

from __future__ import annotations

# Frequent names in English-speaking countries and among their patients, except those that protocols are named by.
_LATIN = """
smith johnson williams brown jones garcia miller davis rodriguez martinez hernandez lopez gonzalez wilson anderson
thomas taylor moore jackson martin lee perez thompson white harris sanchez clark ramirez lewis robinson walker young
allen king wright scott torres nguyen hill flores green adams nelson baker hall rivera campbell mitchell carter
roberts gomez phillips evans turner diaz parker cruz edwards collins reyes stewart morris morales murphy cook rogers
gutierrez ortiz morgan cooper peterson bailey reed kelly howard ramos kim cox ward richardson watson brooks chavez
wood james bennett gray mendoza ruiz hughes price alvarez castillo sanders patel myers long ross foster jimenez
powell jenkins perry russell sullivan bell coleman butler henderson barnes gonzales fisher vasquez simmons romero
jordan patterson alexander hamilton graham reynolds griffin wallace moreno west cole hayes bryant herrera gibson
ellis tran medina aguilar stevens murray ford castro marshall owens harrison fernandez mcdonald woods washington
kennedy wells vargas henry chen freeman webb tucker guzman burns crawford olson simpson porter hunter gordon mendez
silva shaw snyder mason dixon munoz hunt hicks holmes palmer wagner black robertson boyd rose stone salazar fox
warren mills meyer rice schmidt garza daniels ferguson nichols stephens soto weaver ryan gardner payne grant dunn
kelley spencer hawkins arnold pierce hansen peters santos hart bradley knight elliott cunningham duncan armstrong
hudson carroll lane riley andrews alvarado ray delgado berry perkins hoffman johnston matthews pena richards
contreras willis carpenter lawrence sandoval singh khan ali ahmed hussain shah begum kaur sharma gupta kumar wang
zhang liu huang zhao zhou tanaka suzuki sato yamada kowalski nowak novak ivanov petrov mueller muller schneider
fischer weber schulz schulze becker hoffmann schaefer koch bauer richter klein wolf schroeder neumann schwarz
zimmermann braun krueger hofmann hartmann lange krause lehmann meier dupont durand dubois moreau laurent lefebvre
bernard petit rossi russo ferrari esposito bianchi romano jansen jong bakker visser smit johansson andersson
karlsson nilsson larsen nielsen jensen olsen doe roe bloggs brien connor neill macdonald mackenzie oconnor obrien
oneill walsh byrne doyle mccarthy gallagher john mary robert patricia michael jennifer linda david elizabeth william
barbara richard susan joseph jessica sarah charles karen christopher lisa daniel nancy matthew betty anthony
margaret sandra donald ashley steven kimberly paul emily andrew donna joshua michelle kenneth carol kevin amanda
brian dorothy george melissa timothy deborah ronald stephanie edward rebecca jason sharon jeffrey laura cynthia
jacob kathleen gary amy nicholas angela eric shirley jonathan anna stephen brenda larry pamela justin emma brandon
nicole helen benjamin samantha samuel katherine gregory christine frank debra rachel raymond carolyn patrick janet
jack catherine dennis maria jerry heather tyler diane aaron ruth julie olivia adam joyce nathan virginia zachary
victoria walter kyle lauren christian harold joan arthur evelyn roger peter judith jane alice albert hannah jose
juan carlos luis mohammed muhammad fatima
"""
NAMES: frozenset[str] = frozenset(_LATIN.split())

# Diseases named after people, and Latin muscles, can follow "M." as a French name does.
_EPONYMS = """
alzheimer baastrup basedow bechterew boeck bowen bright castleman crohn cushing dupuytren forestier gaucher
hirschsprung hodgkin huntington kahler kienboeck koehler ledderhose menetrier meniere ormond osgood osler paget
parkinson perthes pick pompe raynaud scheuermann schlatter still sudeck waldenstroem waldenstrom werlhof whipple
wilson winiwarter
"""
EPONYMS: frozenset[str] = frozenset(_EPONYMS.split())

# Before a title that follows the name: 王医生, 鈴木先生, 김 교수. Longest first.
CHINESE_SURNAMES = (
    "欧阳|歐陽|司马|司馬|上官|诸葛|諸葛|[王李张張刘劉陈陳杨楊赵趙黄黃周吴吳徐孙孫胡朱高林何郭马馬罗羅梁宋郑鄭谢謝韩韓唐冯馮"
    "于董萧蕭程曹袁邓鄧许許傅沈曾彭吕呂苏蘇卢盧蒋蔣蔡贾賈丁魏薛叶葉阎余潘杜戴夏钟鍾汪田任姜范方石姚谭譚廖邹鄒熊金陆陸郝孔白崔康毛"
    "邱秦江史顾顧侯邵孟龙龍万萬段雷钱錢汤湯尹黎易常武乔喬贺賀赖賴龚龔文]"
)
JAPANESE_SURNAMES = (
    "佐々木|長谷川|佐藤|鈴木|高橋|田中|伊藤|渡辺|渡邊|渡部|山本|中村|小林|加藤|吉田|山田|山口|松本|井上|木村|斎藤|斉藤|齋藤|清水|阿部|山崎"
    "|池田|橋本|石川|山下|小川|石井|後藤|岡田|近藤|前田|藤田|遠藤|青木|坂本|村上|太田|金子|藤井|福田|西村|三浦|竹内|中川|岡本|松田"
    "|中野|原田|小野|田村|藤原|中山|石田|小島|和田|森田|内田|柴田|酒井|宮崎|横山|高木|安藤|宮本|大野|小山|工藤|今井|丸山|上田|高田|村田"
    "|平野|大塚|菅原|武田|千葉|増田|杉山|野口|松井|木下|菊地|菊池|野村|新井|渡会|岩崎|桜井|佐野|林|森"
)
KOREAN_SURNAMES = (
    "남궁|황보|제갈|[김이박최정강조윤장임한오서신권황안송류전홍고문양손배백허유남심노하곽성차주우구민진지엄채원천]"
)
