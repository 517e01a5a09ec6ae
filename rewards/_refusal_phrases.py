"""The phrases of a refusal, English and Chinese, for text in small letters and simplified characters.

Three kinds: ``REFUSALS`` says no; ``LIMITS`` says what an assistant is not able to do at all (see a
screen, taste a dish), which is a refusal only where nothing comes after it; ``HARMLESS`` looks like one of
them and is none, so that it is taken out first.
"""

from __future__ import annotations

import re

from . import _refusal_chinese as chinese
from . import _refusal_english as english

REFUSALS = re.compile("|".join([*english.REFUSALS, *chinese.REFUSALS]))
HARMLESS = re.compile("|".join([*english.HARMLESS, *chinese.HARMLESS]))
LIMITS = re.compile("|".join([*english.LIMITS, *chinese.LIMITS]))

_TRADITIONAL = (
    "與与專专個个為为麼么們们價价會会傳传傷伤倫伦體体決决準准剛刚創创別别辦办務务動动勵励醫医協协參参發发變变響响圍围堅坚處处備备復复夠够誇夸寧宁實实導导將将嘗尝嚐尝屬属幫帮應应開开棄弃強强當当惡恶"
    "願愿揚扬擇择換换據据執执攔拦斷断無无時时顯显暫暂術术權权條条來来樣样沒没測测瀏浏滿满愛爱療疗確确種种離离縱纵線线紹绍絕绝給给繼继續续編编網网職职聯联薦荐範范見见規规視视覽览覺觉觸触認认討讨讓让"
    "許许論论設设訪访證证評评識识訴诉診诊詞词譯译試试話话該该語语誤误說说請请諒谅談谈謊谎謝谢譴谴責责資资訊信贊赞讚赞輸输過过還还這这進进遠远違违適适選选遺遗釋释錯错問问險险隱隐難难須须預预題题驗验"
    "騙骗機机洩泄於于後后聽听內内則则寫写產产議议員员聲声雖虽兒儿業业儘尽盡尽對对關关係系"
)
TO_SIMPLIFIED = str.maketrans(dict(zip(_TRADITIONAL[::2], _TRADITIONAL[1::2], strict=True)))
