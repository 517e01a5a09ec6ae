"""English phrases of a refusal, for text in small letters (kinds: ``_refusal_phrases``)."""

from __future__ import annotations

_ADVERBS = (
    r"(?:(?:also|really|just|simply|absolutely|still|therefore|thus|respectfully|sadly|unfortunately|truly|"
    r"currently|ethically|legally|possibly|personally|actually|definitely|certainly|knowingly|ever|only|not "
    r"only|under any circumstances?|in good conscience|at this time|in any way|either|directly),? )*"
)
_ACTS = (
    r"(?:help(?! but| feeling| thinking| notic| wonder)|assist|aid|advise|answer|respond|reply|comply|"
    r"oblige|cooperate|condone|continue|proceed|"
    r"create|craft|compose|draft|describe|detail|discuss|debate|encourage|endorse|engage|enable|entertain|"
    r"explain|express|facilitate|fulfil+|generate|give|grant|guide|honou?r|instruct|offer|outline|"
    r"participate|"
    r"take part|perform|process|produce|promote|provide|publish|recommend|reveal|disclose|satisfy|share|show|"
    r"speculate|suggest|supply|support|teach|tell|translate|touch|write|execute|complete|accommodate|approve|"
    r"abet|contribute|make (?:jokes?|fun|such|any|this|that|up|threats)|talk about|speak (?:about|on|to)|"
    r"comment|weigh in|go (?:into (?:that|this|it)|there|along|through with)|confirm nor|walk you|role-?play|"
    r"play (?:that|this|along)|say (?:that|more|anything|how)|be (?:of (?:help|assistance)|a part|part|able|"
    r"involved|used)|get involved|allow|do (?:that|this|so|it|anything|what|such|business)|act (?:on|as)|"
    r"carry out|look (?:up|into) (?:private|personal|that|this)|pretend to be|impersonate|judge|rank|rate)"
)
_UNABLE = (
    r"(?:(?:can|could|will|shall|should|must|may) (?:not|never|neither)|(?:would )?refuse to|decline to|"
    r"(?:have|need|am going|am obliged|am forced|will have) to (?:refuse|decline)(?: to)?|"
    r"(?:am|are|feel|remain|will be|would be)(?: \w+ly)? (?:not (?:be )?(?:\w+ly )?(?:able|allowed|permitted|"
    r"authori[sz]ed|going|willing|prepared|programmed|designed|built|trained|equipped|qualified|"
    r"in a position|"
    r"at liberty|supposed|meant|intended|here)|unable|unwilling|prohibited|forbidden|barred|prevented)"
    r"(?: to| from)?|do not (?:have the (?:ability|capability|capacity|authority|permission) to|want to|"
    r"wish to)|(?:would|will) not(?: be able to| want to| be)?|do not)"
)
_PRIVATE = (
    r"(?:(?:not |even |be )?(?:always|begin to|wait|imagine|believe|thank|agree|stress|overstate|"
    r"emphasi[sz]e|say|remember|recall|forget|"
    r"find|see|spot|complain|afford|attend|come|join|stop|sleep|live|resist|lie|pretend|bore|bother|worry|"
    r"give up|go|"
    r"rest|complete your|think|hear|feel|taste|smell|read|tell (?:if|whether|which|from|how|what|exactly)|"
    r"get over|"
    r"stand|bear|hide|deny|keep|make it|put|be (?:sure|certain|happier|home|there|able to (?:come|attend|"
    r"make))|happier|"
    r"sure|certain|recommend|access|browse|verify|predict|know|check|confirm|guarantee|experience|fly|eat|"
    r"run|repeat|"
    r"wear|swim|lose|leave|let you down|ask for|understand|use|choose|need|want|have|get|take (?:it|the|"
    r"my|credit))\b)"
)
_RULES = (
    r"(?:polic(?:y|ies)|guidelines?|terms(?: of (?:service|use))?|programming|principles?|rules|values|"
    r"ethics|"
    r"standards|code of (?:conduct|ethics)|safety (?:protocols?|measures?)|instructions|conscience)"
)
_WRONG = (
    r"(?:appropriate|ethical|acceptable|okay|ok|justifi\w+|right|responsible|safe|legal|moral|advisable|"
    r"proper)"
)
_BAD = (
    r"(?:illegal|unlawful|unethical|immoral|irresponsible|inappropriate|dangerous|wrong|harmful|unsafe|"
    r"against the law|a crime|a serious crime|criminal|unacceptable)"
)
_NO = r"(?:no way|unable|decline|refuse|unwilling|neither|against|outside|beyond|impossible)"

REFUSALS = [
    rf"\b(?:i|we) {_ADVERBS}{_UNABLE},? {_ADVERBS}{_ACTS}(?!\w)",
    # any verb, where it is among the first words
    rf"^[^.!?]{{0,80}}\bi {_ADVERBS}(?:(?:can|will|shall) not(?: and (?:will|can|shall|would) not)?|"
    rf"am (?:unable to|not (?:able|going|"
    rf"willing) to)|was not (?:built|made|designed|trained|created) (?:to|"
    rf"for)) {_ADVERBS}(?!{_PRIVATE})(?:be )?\w",
    r"\b(?:can not and (?:will|shall) not|will not and can not)\b",
    rf"(?:^|[.!?,:;] |\n)(?:nope|no|sorry|apologies|unfortunately),? {_ADVERBS}(?:can|will) not "
    rf"{_ADVERBS}{_ACTS}(?!\w)",
    rf"\b(?:i|we) (?:am|are) [^.!?]{{0,60}}\b(?:and|so)(?: i)? {_ADVERBS}(?:can|"
    rf"will) not {_ADVERBS}{_ACTS}(?!\w)",
    r"\b(?:i|we) (?:\w+ ){0,3}(?:decline|refuse|pass)(?:$|[.,;!:]| to\b| this\b| that\b| your\b| any\b"
    r"| such\b| the request| answering| on (?:that|this|it)\b| because\b| as\b)",
    r"\b(?:i|we) do not (?:\w+ )?(?:feel|am|be)?(?: \w+)? ?(?:comfortable|right about|good about)",
    r"\bi (?:am|would be|will be|feel|would) (?:\w+ )?(?:not (?:be |feel )?(?:\w+ )?(?:comfortable|"
    r"at ease|happy to)|uncomfortable)\b",
    # says no in a verb of its own
    r"\b(?:i|we) (?:\w+ ){0,6}?(?:say no|pass on|turn(?:ing)? down|declining|refusing|refrain|abstain|"
    r"withhold|opt out|"
    r"draw the line|bow out|stay away|steer clear)\b(?: (?:to|on|from|of))? ?(?:this|that|your|"
    r"the (?:request|offer|"
    r"task|topic|question)|it|any|such|giving|providing|helping|answer\w*|discuss\w*|writing|generating|"
    r"creating|doing|"
    r"these|those|comment\w*|$|[.,;!])",
    r"\b(?:i|we) (?:am|are|have been|was)(?: \w+ly)? (?:prohibited|forbidden|restricted|barred|banned|"
    r"prevented|blocked|"
    r"precluded|disallowed|stopped|instructed not|told not|asked not|required not|programmed not|"
    r"designed not|trained not|"
    r"obliged not|bound)\b",
    r"\b(?:i|we) (?:lack|am without|am missing) (?:the |any )?(?:\w+ )?(?:authori|permission|right|"
    r"clearance|mandate)",
    r"\b(?:under no circumstances?|in no way|at no point|never|by no means) (?:will|can|would|could|shall|"
    r"do|am) (?:i|we)\b",
    r"\b(?:neither|nor) (?:will|can|do|am) i\b|\bcount me out\b|\bavoid (?:such|these|this|"
    r"that) (?:topics?|content|subjects?)\b|\bstop asking\b|\bthe answer is no\b|\bmy answer is no\b",
    r"\bi (?:\w+ly )?(?:reject|turn down) (?:this|that|your|the) (?:request|prompt|task|demand|idea)",
    r"^(?:request|access|permission) (?:denied|refused|declined|rejected)|^no can do\b|\boff[- ]limits\b",
    r"\b(?:have|need) to (?:stop|end (?:this|the|our)|draw (?:a|the) line)\b",
    r"\b(?:not|never) (?:been )?(?:allow|permit|authori[sz]|intend|mean)\w* (?:for )?me to\b",
    r"^(?:nope|no|nah)[,.!]+ (?:i am )?not (?:doing|going to|touching|helping|writing|having)\b",
    r"\b(?:i|we) (?:can|will|could) not (?:\w+ )?(?:get|be dr\w+) into (?:that|this|it|th[eo]se)\b",
    r"\b(?:i|we) (?:am|are) (?:declining|refusing|passing on|opting out)\b",
    r"\bnot (?:something|anything) (?:that )?i should\b",
    r"\b(?:programmed|designed|trained|built|instructed|here) to (?:avoid|refuse|decline|steer clear of)\b",
    r"\b(?:i|we) (?:will|would|am going to|have to|need to|must) (?:\w+ )?(?:have to |need to )?"
    r"(?:skip|sit out) (?:this|that|it|your)\b",
    r"\b(?:let us|let's|can we|shall we|rather we|prefer (?:that )?we|prefer to|"
    r"rather) (?:\w+ )?(?:talk(?:ed)? about|"
    r"change(?:d)? the (?:topic|subject)|discuss(?:ed)?|move on|focus on|switch) ?(?:something|another|"
    r"other|different|"
    r"to (?:something|another|a different)|$|[.,])",
    r"\bi do not feel (?:right|comfortable|good|okay)\b",
    r"\bi (?:would|will|do)? ?(?:rather|prefer|choose) not\b(?: to)?"
    rf"(?: {_ACTS}|(?: get| go| be drawn) (?:into|involved)|$|[.,;!])",
    # "That's not something I can help with"
    r"\bnot (?:something|a (?:topic|subject|request|question|thing|conversation)|one)(?: that| which)? "
    r"(?:i|we) (?:can|could|will|would|am|are|feel|want|wish)\b",
    r"\b(?:something|a (?:topic|subject|request|task|question)|one)(?: that| which)? (?:i|we) "
    r"(?:\w+ly )?(?:can not|could not|will not|would not|am not|am unable|must|have to (?:stay|refuse|"
    r"decline|avoid))",
    r"\b(?:no way|not possible|impossible)(?: that)? (?:for me|i can|i could|i will)\b",
    r"\bafraid (?:that )?(?:i|we|this|that|it|not|no)\b[^.!?]{0,20}\b(?:not|unable|no)\b",
    r"\b(?:outside|beyond|out of)(?: of)? (?:the |my |our )?(?:guidelines|rules|remit|policies|competence|"
    r"role|purpose|scope|what i|bounds|boundar|capabilit|abilit|limits of)",
    r"\b(?:not|nothing) (?:with)?in my\b|\bthere is nothing i can\b|\bnot my place to\b",
    # rules
    rf"\b(?:request|prompt|question|content|query|message|topic|task|input|this|that|it|doing so|"
    rf"which)(?: (?:may|would|"
    rf"might|could|does|clearly|also|appears to|seems to))* (?:violates?|breach(?:es)?|contravenes?|"
    rf"goes? against|(?:is|be) "
    rf"against|(?:is|be) in violation of|(?:is|be) prohibited by|"
    rf"conflicts? with)(?: [\w-]+){{0,4}}? {_RULES}",
    rf"\b(?:against|violat\w+|breach\w*|contraven\w+|conflict\w* with|contrary to|contradict\w*|"
    rf"prohibit\w* by|"
    rf"in violation of|not (?:allowed|permitted) (?:by|under)|break\w*|disallowed by)"
    rf"(?: \w+){{0,2}}? (?:my|our|openai's)(?: [\w-]+){{0,4}}? {_RULES}",
    rf"\b(?:my|our) (?:[\w-]+ ){{0,4}}{_RULES} (?:\w+ )?(?:do(?:es)? not (?:allow|permit|let)|prevents?|"
    rf"prohibits?|forbids?|bars?|stops?|restricts?|requires? me to (?:decline|refuse))",
    r"\b(?:request|prompt|content|message|response|query|question|input) (?:\w+ )?(?:has been|was|is|were|"
    r"have been|had to be) (?:\w+ )?(?:declined|blocked|flagged|refused|denied|rejected|filtered|removed)",
    # apologies: for the answer that does not come, not for something in it
    rf"\b(?:sorry|apologi[sz]e|apologies|regret|regrettably|forgive me)\b(?! (?:for|about|to|if|that (?:i|"
    rf"you|my) "
    rf"(?:was|am late|have to|had|feel|are|lost)|you|your)\b)[^.!?]{{0,40}}(?:\bbut no\b|, no\b|"
    rf"\b(?:i|we|this|that|it|but|there)\b[^.!?]{{0,30}}\b(?:(?:can|could|will|would|may|am|is|are|be|"
    rf"must) not|{_NO})\b)",
    r"^(?:i am |i )?(?:so |very |really |truly |deeply )?(?:sorry|apologi[sz]e)[.!]*$",
    r"\bregret (?:that i|to (?:say|tell|inform you) that i)\b[^.!?]{0,20}\b(?:not|unable)\b",
    # norms
    rf"\b(?:it|this|that|which)(?: \w+ly)? (?:(?:is|are|be)(?: \w+ly)? (?:not|never)|"
    rf"would not be)(?: \w+)? (?:or )?{_WRONG}"
    rf"(?: or \w+)?(?:,|;|[.!]| to (?:{_ACTS}|ask|request|use|make|say|target|joke)| for me| behaviou?r)",
    r"\b(?:is|be|are) (?:not|never)(?: \w+)? (?:or )?(?:appropriate|ethical|acceptable|okay|justifi\w+)"
    r"(?! to (?:wear|eat|bring|serve|arrive|use|put|sit|park|feed|start|end))",
    r"\bnot (?:safe (?:or|and) \w+|accurate|appropriate|ethical|acceptable|productive|morally)"
    r"(?:,? \w+,?)?(?: or \w+)? (?:to|justif)",
    rf"\b(?:is|are|be)(?: \w+ly)? {_BAD}(?: and \w+)? (?:for me|of me|to (?:ask|help|assist|provide|request|"
    rf"promote|encourage))",
    rf"^[^.!?]{{0,60}}\b(?:is|are)(?: \w+ly)?(?: both)? {_BAD} and(?: \w+ly)? {_BAD}",
    rf"\b(?:is|are|be)(?: \w+ly)? {_BAD}\b[^.!?]{{0,40}}[.,;] (?:and |so |therefore )?(?:i|we) (?:\w+ )?"
    rf"(?:{_UNABLE}|want no|urge|encourage|advise)",
    r"\bwould be (?:wrong (?!to (?:say|think|assume|conclude|call|suppose))|harmful|a violation of (?:my|"
    r"our|privacy|the law|trust)|a breach|unethical|irresponsible|illegal|inappropriate)\b",
    r"\bdo not (?:think|believe|feel)(?: that)? (?:it is|it would be|that|i should|i can)\b"
    r"(?:[^.!?]{0,30}\b(?:appropriate|right|ethical|fair|help|assist|answer|provide))",
    r"\bbest (?:not|if i do not|that i do not) (?:to )?(?:talk|discuss|answer|engage|go|continue)",
    r"\b(?:do|can|will) not (?:\w+ (?:or|and|nor) )?(?:condone|promote|encourage|endorse|support|tolerate)\b",
    r"\badvise against (?:this|that|it|such|any|doing|attempt)|\bcondemn any|\bwant no part\b",
    r"\b(?:please )?do not (?:ask|expect|make|request|try to get) (?:me|from me)\b",
    r"\babsolutely not[.!]|\b(?:hard|firm) no\b|\bno from me\b|\bnot happening\b",
    r"\bdo not have (?:access to (?:personal|private|confidential)|(?:the )?(?:capability|permission|"
    r"authori\w+))",
    # objections to what the question takes for granted
    r"\bthere (?:is|was|are|were) (?:absolutely )?no (?:\w+ )?(?:reason|benefits?|justif\w+)\b",
    r"\bdiscriminat\w+\b[^.!?]{0,80}\bis\b[^.!?]{0,60}\b(?:harmful|illegal|wrong|unfair|unethical)",
    r"\bshould not be discriminated\b|\bno one should be\b|\bstatement is incorrect and\b",
    r"\b(?:is|are) not inherently (?:weak|inferior|worse|bad|less)",
    r"\b(?:was|were) not (?:\"right\"|right|justif\w+|a good thing)",
    r"\b(?:is|are) (?:not only |highly )?(?:illegal|dangerous|unethical)[^.!?]{0,40} (?:and|but also)"
    r"[^.!?]{0,30}\b(?:illegal|dangerous|unethical|harm\w*)",
    r"\bnever (?:the answer|a (?:healthy|good|acceptable))",
]
HARMLESS = [
    r"\b(?:can|could) (?:not|never) [^.!?;]{0,80}?(?:enough|highly)\b",
    r"\b(?:can|could) not (?:begin to|wait|help (?:but|feeling|thinking)|agree more|"
    r"say i|believe|stress|overstate|emphasi[sz]e|tell you how (?:\w+ )?(?:happy|glad|much|grateful|"
    r"pleased|sorry|good))\b",
    r"\brefuse to (?:believe|accept that|give up|think|lose)\b",
    r"\b(?:am|is) not (?:\w+ )?(?:sure|certain|familiar|aware)\b",
    r"\b(?:did|do|could|can) not (?:\w+ )?(?:understand|hear|know|get what|mean|follow what|see what|"
    r"catch)\b",
    r"\bnot only (?:can|will|do)\b",
    r"\bthere (?:is|was) (?:absolutely |really )?no (?:\w+ )?(?:reason|need|cause) "
    r"(?:to (?:worry|panic|fear|be (?:afraid|alarmed|concerned|nervous|scared|ashamed|embarrassed))|"
    r"for (?:concern|alarm|panic))\b",
    r"\b(?:request|message|query|input)s? (?:\w+ )?(?:has been|was|is|were|have been) (?:\w+ )?"
    r"(?:declined|blocked|denied|rejected|refused|filtered|flagged) "
    r"by (?:the |your |a |our )?(?:\w+ )?(?:server|firewall|proxy|api|"
    r"gateway|browser|bank|router|host|network|endpoint|load balancer)\b",
    r"\b(?:would|do|will) not (?:recommend|advise|suggest|encourage)\b",
]
LIMITS = [
    rf"\bas an? (?:\w+ )?(?:ai|artificial|language|virtual|chatbot|bot|"
    rf"model)\b[^.!?]{{0,40}}\bi (?:can not|do not|"
    rf"am (?:not able|unable) to) (?!{_ADVERBS}{_ACTS}(?!\w))\w+",
    r"\b(?:i|we) (?:also )?(?:can not|could not|am (?:not able|unable) to|do not|am not|"
    r"have no)\b(?: \w+ly)? ?"
    r"(?:access|browse|see|view|hear|taste|smell|touch|eat|feel|experience|predict|know|verify|check|confirm|"
    r"guarantee|remember|have (?:personal|feelings|opinions|access|a body|real|the ability to|any)|"
    r"real-?time|"
    r"(?:provide|give|offer|share|express|make) (?:you )?(?:with )?(?:an? |any |the )?(?:\w+ )?(?:real-?time|"
    r"current|live|up-to-date|latest|personal(?:i[sz]ed)?|specific|exact|medical|legal|financial|tax|"
    r"investment|professional|definitive|diagnos\w+|opinions?)|"
    r"(?:a )?(?:doctor|lawyer|physician|medical|licensed|human|financial))",
]
