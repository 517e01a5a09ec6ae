"""Kinds of answers: for each reference, texts that state it and texts that do not."""

from __future__ import annotations

import pytest

from align.reward.contract import Sample
from align.reward.functions.registry import resolve

EXACT = resolve("exact_answer").function


def exact(text: str, answer: str) -> float:
    return float(EXACT(Sample((), text, columns={"answer": answer})))


KINDS: dict[str, list[tuple[str, list[str], list[str]]]] = {
    "decimal with a unit": [
        ("1.9", ["\\boxed{1.9\\text{ m}}", "The answer is 1.9 m.", "\\(1.9\\,\\text{m}\\)", "1.9m"],
         ["\\boxed{1.8\\text{ m}}"]),
        ("1", ["\\boxed{1\\text{ m}}"],
         ["\\boxed{1.9\\text{ m}}", "The answer is 1.9 m.", "\\boxed{1.5\\pi}", "1.25 x"]),
        ("30.5", ["\\boxed{30.5^\\circ}", "30.5°", "30.5 degrees"],
         ["\\boxed{30^\\circ}", "\\boxed{30.6^\\circ}"]),
        ("3.5", ["\\boxed{3.5 \\, \\text{m/s}^2}", "$3.5\\,\\mathrm{J}$", "3.5 m/s²"],
         ["\\boxed{3.5\\sqrt{2}}", "\\boxed{3.5i}"]),
        ("0.5", ["\\boxed{.5}", "The answer is .5", "So we get .5"], ["5"]),
        ("5", ["\\boxed{5}"], ["\\boxed{.5}", "The answer is .5", "So we get .5"]),
    ],
    "power of ten": [
        ("625", ["\\boxed{6.25\\times 10^2}", "6.25 x 10^2", "6.25e2", "6.25×10²"],
         ["\\boxed{6.25\\times 10^3}"]),
        ("6.25", ["6.250"], ["\\boxed{6.25\\times 10^2}", "6.25e2", "6.25 × 10²"]),
        ("1000", ["1e3", "\\boxed{1e3}", "10^3"], ["1e4", "1", "13"]),
        ("1.6 \\times 10^{-19}", ["\\boxed{1.60\\times10^{-19}}", "1.6e-19"],
         ["\\boxed{9.1 \\times 10^{-31}}", "0"]),
        ("\\frac{1}{2004!}", ["\\boxed{\\frac{1}{2004!}}"], ["\\boxed{\\frac{1}{2006!}}", "0"]),
        ("(1e-7, 2)", ["(1e-7, 2)"], ["(3e-7, 2)"]),
    ],
    "exact or near": [
        ("1/3", ["0.333333", "\\frac{2}{6}"], ["0.33", "0.333", "0.34"]),
        ("\\pi", ["3.141593", "π"], ["3.14", "22/7"]),
        ("2^{100}", ["2^{100}"], ["2^{100}+1"]),
        ("12345678.9", ["12,345,678.9"], ["12345678.8"]),
        ("1000000007", ["10^9+7"], ["1000000008", "1e9"]),
    ],
    "plain formula": [
        ("-2\\pi", ["-2*pi", "The answer is -2*pi.", "So x = -2π."], ["-2", "2*pi"]),
        ("\\frac{\\pi}{2}", ["pi/2", "π/2", "The angle is pi/2."], ["2", "pi/3"]),
        ("2", ["2"], ["pi/2", "The angle is pi/2.", "2**3", "x^2", "2√3", "2sqrt(3)"]),
        ("\\frac{1}{\\sqrt{n}}", ["\\boxed{1/\\sqrt n}", "1/\\sqrt n", "1/sqrt(n)"],
         ["1", "1/n", "\\sqrt n"]),
        ("\\frac{10}{9}", ["\\frac{10}{9}", "So the result is \\frac{10}{9}."], ["10", "9", "\\frac{9}{10}"]),
        ("9", ["9"], ["So the result is \\frac{10}{9}."]),
        ("8", ["2**3", "\\boxed{2**3}", "2^3"], ["2**4"]),
        ("23", ["23"], ["2**3", "\\boxed{2**3}"]),
        ("72", ["72"], ["72!", "\\boxed{72!}", "There are 72! ways"]),
        ("120", ["\\boxed{5!}", "5!"], ["4!"]),
        ("x^2", ["x**2", "x²", "x*x"], ["2", "2x"]),
        ("2i", ["(1+i)^2", "\\boxed{2i}"], ["2", "-2i"]),
    ],
    "fraction": [
        ("1/2", ["½", "\\boxed{\\nicefrac{1}{2}}", "\\boxed{\\tfrac12}", "one half", "50%"], ["2", "1", "⅓"]),
        ("5/2", ["2 1/2", "\\boxed{2\\frac{1}{2}}", "2½", "5/2"], ["1/2", "2", "2 1/3"]),
        ("21/2", ["10.5"], ["2 1/2"]),
        ("12", ["12"], ["1 2", "\\boxed{1 2}", "\\boxed{1\\ 2}", "1/2"]),
        ("-\\frac{1}{2}", ["\\frac{-1}{2}", "\\frac{1}{-2}", "−½", "-0.5"], ["1/2"]),
    ],
    "separators and signs": [
        ("1000", ["1,000", "1 000", "1\\,000", "1{,}000", "1.0e3"], ["1", "1,001"]),
        ("1,234", ["1234"], ["1.234", "1,235"]),
        ("1.22", ["1,22"], ["122", "1,23"]),
        ("1, 22", ["\\boxed{22, 1}", "\\{1, 22\\}"], ["1.22", "122"]),
        ("0.5x", ["\\boxed{.5x}", "x/2"], ["5x", "0.5"]),
        ("32349", ["32,\\! 349"], ["\\boxed{32, 349}"]),
        ("1000.99", ["1000,99", "1,000.99 €"], ["100099"]),
        ("18", ["\\$18", "$18.00", "18€", "+18", "£18 a day"], ["-18", "180", "1.8"]),
        ("50%", ["50\\%", "50 percent", "0.5", "50"], ["5%", "0.05"]),
    ],
    "thought": [
        ("5", ["<think>6</think>5", "6?</think> The answer is 5."],
         ["<think>\\boxed{5}</think> I do not know."]),
        ("6", ["<think>5</think><answer>6</answer>"],
         ["<think>The answer is 6", "<think>\\boxed{6}</think>7"]),
    ],
    "Chinese": [
        ("50", ["50元", "答案是50元。", "答：一共需要50元。", "五十", "\\boxed{50\\text{元}}"],
         ["5元", "500元", "5"]),
        ("14", ["\\boxed{14人}", "答：参加的有14人。", "十四", "14（人）"], ["15人", "十五"]),
        ("12", ["十二", "答案是十二个。"], ["二十", "十", "一二"]),
        ("50000", ["5万", "答案是5万元", "五万"], ["5", "5千"]),
        ("5", ["答案是：\\(5\\)", "答案是：$5$。", "【答案】5"],
         ["5万", "答案是5万。", "负5", "星期五", "5.5元"]),
        ("-3", ["负3", "负三", "答案是负3。"], ["3", "答案是3"]),
        ("3", ["3千克", "三千克", "3千米"], ["3千", "三千"]),
        ("2/3", ["三分之二"], ["二分之三"]),
        ("45", ["答案不是30，而是45。", "答案是45，不是30。"], ["答案不是45。"]),
        ("12000", ["一万二千", "1万2千"], ["1万", "十二万"]),
    ],
    "several boxes": [
        ("2, 3", ["\\boxed{2} and \\boxed{3}", "$x=\\boxed{3}$ or $x=\\boxed{2}$", "2 and 3"],
         ["\\boxed{3}", "23"]),
        ("\\{1,2,3\\}", ["\\boxed{1}, \\boxed{2} and \\boxed{3}"],
         ["\\boxed{1}, \\boxed{2} and \\boxed{4}", "\\boxed{3}"]),
        ("The roots are \\boxed{2} and \\boxed{3}.", ["\\boxed{2,3}"], ["\\boxed{3}", "\\boxed{2}"]),
        ("3", ["\\boxed{3}"], ["\\boxed{2} and \\boxed{3}"]),
        ("5", ["\\boxed{4}. Wait, \\boxed{5}", "\\boxed{4}, then \\boxed{5}", "\\boxed{5}, \\boxed{5}"],
         ["\\boxed{5}, no, \\boxed{4}"]),
    ],
    "the last mark": [
        ("13", ["\\boxed{12} so far. Final answer: 13", "\\boxed{12}.\nThe final answer is $13$."],
         ["\\boxed{13}. Final answer: 12"]),
        ("12", ["\\boxed{12}. I hope the answer is clear.", "Answer: \\boxed{12}"],
         ["\\boxed{12}\n\n**Final Answer:** 13"]),
        ("Monday", ["#### Monday", "so\n#### Monday.", "The answer is Monday."],
         ["#### Tuesday", "#### Monday\nNo: Tuesday"]),
        ("18", ["#### Answer\n18", "#### 18 dollars"], ["#### 18\n#### 19"]),
    ],
    "words": [
        ("3000000", ["3 million", "The population is 3 million.", "\\boxed{3\\text{ million}}",
         "three million"], ["3"]),
        ("3", ["three"], ["3 million", "\\boxed{3\\text{ million}}", "Revenue: $3 million"]),
        ("-5", ["minus 5", "The answer is minus 5.", "negative five"], ["5"]),
        ("5", ["five apples"], ["minus 5", "It is negative 5."]),
        ("72", ["The answer is 72, not 71.", "The answer is not 71 but 72.", "It's not 71, it's 72."],
         ["71"]),
        ("71", ["71"], ["not 71", "The answer is not 71.", "The answer cannot be 71.", "It is 72, not 71."]),
        ("42", ["forty-two", "There are forty two."], ["forty", "I think 41 or 42"]),
        ("dog", ["dog", "\\boxed{\\text{Dog}}"], ["god", "\\boxed{\\text{god}}"]),
        ("March 3", ["March 3", "\\boxed{\\text{March 3}}"], ["3", "May 3"]),
    ],
    "other kinds": [
        ("[0,1)", ["\\boxed{\\left[0,1\\right)}", "0 \\le x < 1"], ["(0,1)", "[0,1]"]),
        ("(1,2)", ["(1, 2)", "$(x,y)=(1,2)$"], ["(2,1)", "(1,3)"]),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", ["\\boxed{\\begin{bmatrix}1\\\\2\\end{bmatrix}}"],
         ["\\begin{pmatrix}2\\\\1\\end{pmatrix}"]),
        ("5 cm", ["5", "5 centimeters", "\\boxed{5\\,\\text{cm}}"], ["5 m", "\\boxed{5\\text{ km}}"]),
        ("204_5", ["\\boxed{204_{5}}"], ["204", "204_6"]),
        ("12:30", ["Answer: 12:30"], ["2:5", "12:31"]),
        ("0", ["\\boxed{x = 0}", "zero"], ["\\boxed{x^2+1=0}", ""]),
        ("\\Delta", ["\\boxed{\\Delta}"], ["\\boxed{\\delta}"]),
    ],
}  # fmt: skip
CASES = [
    pytest.param(answer, text, float(right), id=f"{kind}: {answer[:30]} | {text[:40]}")
    for kind, rows in KINDS.items()
    for answer, accepted, refused in rows
    for texts, right in ((accepted, True), (refused, False))
    for text in texts
]


def test_every_kind_is_there() -> None:
    assert len(CASES) == 340


@pytest.mark.parametrize(("answer", "text", "value"), CASES)
def test_kinds(answer: str, text: str, value: float) -> None:
    assert exact(text, answer) == value
