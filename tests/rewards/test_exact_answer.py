from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from align.errors import RewardError
from align.reward.contract import Sample
from align.reward.functions.registry import resolve

Score = Callable[..., float | None]

EXACT = resolve("exact_answer").function
LIMITS = EXACT.__globals__["equivalent"].__globals__


def exact(text: str, answer: object) -> float | None:
    result = EXACT(Sample((), text, columns={"answer": answer}))
    return None if result is None else float(result)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("18", "The answer is 18."),
        ("18", "The answer is $18 per day."),
        ("18", "Answer: 18 dollars"),
        ("18", "**Answer:** 18"),
        ("18", "Final answer: **18**"),
        ("18", "9 * 2 = 18\n#### 18"),
        ("18", "#### Summary\nso 18"),
        ("18", "Q: how many?\nA: 18"),
        ("18", "The answer is 18 (not 20)"),
        ("18", "The answer is 9 * 2"),
        ("18", "\\boxed{18 \\text{ dollars}}"),
        ("18", "\\boxed{\\$18}"),
        (18, "the sum is 18"),
        (18.0, "the sum is 18"),
        ("1234", "so 1,234"),
        ("1,000", "#### 1000"),
        ("1234", "\\boxed{1{,}234}"),
        ("1234.50", "$1,234.5"),
        ("7", "The answer is 3 + 4 = 7"),
        ("0.5", "The answer is 1/2."),
        ("0.5", "\\boxed{\\frac{1}{2}}"),
        ("3/4", "so it is 3/4"),
        ("50%", "Answer: 50"),
        ("0.5", "50%"),
        ("-3", "x = -3"),
        ("2", "5-3"),
        ("-3", "The answer is −3"),
        ("-5", "The answer is -5 degrees"),
        ("12", "答案是12。"),
        ("12", "答案：12"),
        ("3", "The answer is $3$."),
        ("3", "The answer is \\(3\\)."),
        ("5", "\\boxed{5"),
        ("5", "first \\boxed{4}, then \\boxed {5}"),
        ("5", "\\boxed{\\boxed{5}}"),
        ("5", "\\boxed{x=5}"),
        ("5", "\\boxed{5\\text{ km}}"),
        ("8", "\\boxed{2^3}"),
        ("1", "\\boxed{2 \\cdot (\\frac{1}{2})}"),
        ("18", "The answer is 18 a day."),
        ("30", "\\boxed{30^\\circ}"),
        ("yes", "The answer is Yes."),
        ("x+1", "\\boxed{1+x}"),
        ("\\frac{1}{3}", "The answer is $\\frac{2}{6}$."),
        ("\\{1,2\\}", "\\boxed{\\{2,1\\}}"),
        ("12:30", "Answer: 12:30"),
        # LaTeX, written otherwise
        ("Yes", "\\boxed{\\text{yes}.}"),
        ("true", "\\boxed{\\mathrm{True}}"),
        ("\\mathbb{Z}/2\\mathbb{Z}", "\\boxed{\\mathbb Z / 2\\mathbb Z}"),
        ("\\mathbb{Z}_4", "\\boxed{\\mathbb{Z}_{4}}"),
        ("e^e", "\\boxed{e^{e}}"),
        ("\\emptyset", "\\boxed{\\varnothing}"),
        ("p \\equiv 1 \\pmod{4}", "\\boxed{p\\equiv1\\pmod 4}"),
        ("k \\neq 1", "\\boxed{k\\ne 1}"),
        ("[0, 1)", "\\boxed{\\left[0, 1\\right)}"),
        ("1+i", "\\boxed{i+1}"),
        ("\\frac{n(n+1)}{2}", "\\boxed{\\binom{n+1}{2}}"),
        ("\\sqrt{2}", "So the answer is √2"),
        ("\\frac{\\pi}{4}", "Answer: π/4"),
        ("x > 2", "\\boxed{(2,\\infty)}"),
        ("2ab", "\\boxed{2ba}"),
        ("\\frac{1}{2} \\text{ m}", "\\boxed{\\frac{2}{4}}"),
        ("5 cm", "\\boxed{5}"),
        ("\\frac{1}{2}mv^2", "\\boxed{\\frac12 mv^2}"),
        ("5", "\\boxed{5 cm}"),
        # a formula that ends the text
        ("2\\pi", "Therefore, the limit is $2\\pi$."),
        ("\\frac{3}{4}", "the result is \\( \\frac{3}{4} \\)."),
        ("3/4", "hence\n\\[\nx = \\frac{3}{4}.\n\\]"),
        # references that hold the whole solution
        ("9 * 2 = 18\n#### 18", "it is 18"),
        ("so \\boxed{18}", "it is 18"),
        ("She makes 9 * 2 = 18.\nA: 18", "it is 18"),
    ],
)
def test_right(answer: object, text: str) -> None:
    assert exact(text, answer) == 1.0


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("18", ""),
        ("18", "I do not know"),
        ("18", "18 was my first guess. The answer is 20."),
        ("18", "\\boxed{18, 19}"),
        ("18", "The answer is 18 or 19."),
        ("3", "The answer is 3.5"),
        ("35", "3.5"),
        ("4", "so it is 3/4"),
        ("2", "\\boxed{2^3}"),
        ("2", "The answer is 2x"),
        ("2", "The answer is 2 x"),
        ("2", "The answer is 2 sqrt(3)"),
        ("2", "The answer is 2 (x + 1)"),
        ("2", "\\boxed{2 \\cdot (\\frac{1}{2})}"),
        ("2", "\\boxed{2 \\sqrt{3}}"),
        ("2", "\\boxed{2\\pi}"),
        ("2", "The answer is 9 * 2"),
        ("9", "\\boxed{9^{9}}"),
        ("1/3", "0.333"),
        ("x+1", "\\boxed{x-1}"),
        ("yes", "The answer is no."),
        ("1", "18" * 40),
        ("1", "\\boxed{n > 1}"),
        ("1", "\\boxed{|x| < 1}"),
        ("3", "\\boxed{S_3}"),
        ("3", "\\boxed{3:1}"),
        ("0", "\\boxed{[0, \\infty)}"),
        ("Yes", "\\boxed{\\text{No}}"),
        ("\\mathbb{Z}", "\\boxed{\\mathbb{Q}}"),
        ("\\infty", "\\boxed{-\\infty}"),
        ("[0,1)", "\\boxed{(0,1]}"),
        ("k \\neq 1", "\\boxed{k = 1}"),
        ("2", "\\boxed{\\mathbb{Z}_2}"),
        ("2ab", "\\boxed{2}"),
        ("4a", "\\boxed{4}"),
        ("\\pi ab", "\\boxed{\\pi}"),
    ],
)
def test_wrong(answer: object, text: str) -> None:
    assert exact(text, answer) == 0.0


def test_null_abstains_and_a_missing_or_absurd_column_is_an_error() -> None:
    assert exact("18", None) is None
    with pytest.raises(RewardError, match="no column 'answer'"):
        EXACT(Sample((), "18"))
    with pytest.raises(ValueError, match="holds 599 characters"):
        exact("18", "word " * 120)


@pytest.mark.parametrize(
    ("extract", "value"),
    [("auto", "3"), ("boxed", "1"), ("hash", "2"), ("answer", "3"), ("formula", None), ("number", "4")],
)
def test_where_to_look(score: Score, extract: str, value: str | None) -> None:
    text = "\\boxed{1}\n#### 2\nAnswer: 3\nand 4"
    for answer in "1234":
        found = score("exact_answer", text, args={"extract": extract}, answer=answer)
        assert found == float(answer == value)
    assert score("exact_answer", "no mark: 4", args={"extract": extract}, answer="4") == float(
        extract in {"auto", "number"}
    )


def test_a_reference_that_cannot_be_read_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = "\\sqrt{x^{2}+" + "+".join(f"\\frac{{{n}}}{{x}}" for n in range(20)) + "}"
    monkeypatch.setitem(LIMITS, "SECONDS", 0.001)
    gc.disable()  # its callbacks would swallow the alarm, and the next comes too late for this one
    try:
        with pytest.raises(ValueError, match=r"takes more than 0\.001 s to read"):
            exact("\\boxed{5}", truth)
    finally:
        gc.enable()
    monkeypatch.undo()  # and the failure is not remembered
    assert exact(f"\\boxed{{{truth} + 1 - 1}}", truth) == 1.0


def test_an_alarm_that_is_swallowed_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a finaliser, where Python reports an exception and goes on."""
    monkeypatch.setitem(LIMITS, "SECONDS", 0.01)
    too_long = LIMITS["TooLongError"]
    caught = []

    def spin() -> None:
        while True:
            pass

    def swallow_one() -> None:
        try:
            spin()
        except too_long:
            caught.append(1)
        spin()

    with pytest.raises(too_long), LIMITS["limited"]():
        swallow_one()
    assert caught == [1]


def test_a_number_before_a_bracketed_fraction_multiplies() -> None:
    """latex2sympy, under math-verify, adds the two, as in a mixed number."""
    assert exact("\\boxed{2\\frac{1}{2}}", "2.5") == 1.0
    assert exact("\\boxed{2 \\cdot (\\frac{1}{2})}", "1") == 1.0
    assert exact("\\boxed{2(\\frac{1}{2})}", "1") == 1.0
    assert exact("\\boxed{2\\left(\\frac{1}{2}\\right)}", "2.5") == 0.0


def test_outside_the_main_thread_there_is_no_alarm_and_the_same_verdict() -> None:
    with ThreadPoolExecutor(1) as pool:
        texts = ["\\boxed{\\frac{2}{6}}", "\\boxed{9^{9^{9^9}}}", "\\boxed{0.3}"]
        assert list(pool.map(lambda text: exact(text, "\\frac{1}{3}"), texts)) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{10000000!}",
        "\\boxed{9^{9^{9^{9}}}}",
        "9^9^9^9",
        "The answer is 9**9**9**9",
        "\\boxed{\\binom{1000000000}{500000000}}",
        "\\boxed{(99999!)!}",
        "1e999999999",
        "\\boxed{x^{10000000}-1}",
        "\\boxed{\\prod_{k=1}^{10000000} k}",
        "\\boxed{" + "\\frac{1}{" * 400 + "2" + "}" * 401,
    ],
)
def test_what_nobody_can_work_out_is_wrong(text: str) -> None:
    assert exact(text, "5") == 0.0


@pytest.mark.parametrize(
    "text_of",
    [
        lambda n: "\\boxed{" + "(" * n + "}",
        lambda n: "\\boxed{" * n,
        lambda n: "\\boxed{" * n + "1" + "}" * n,
        lambda n: "\\boxed{5} and " * n + "\\boxed{4}",
        lambda n: "{" * n,
        lambda n: "9" * n,
        lambda n: "#### " * n,
        lambda n: "Answer: " * n,
        lambda n: "<think>" * n,
        lambda n: "<answer>" * n,
        lambda n: "\\( " * n,
        lambda n: "$$" * n,
        lambda n: "a$" * n,
        lambda n: "\n" * n,
        lambda n: "\n答" * n,
        lambda n: "1 " * n,
        lambda n: "1," * n,
        lambda n: "三" * n,
        lambda n: "one " * n,
        lambda n: "*" * n,
        lambda n: "the answer is not " * n,
        lambda n: "x=1, " * n,
    ],
)
def test_hostile_answers_are_wrong_and_quick(text_of, grows_as_its_text) -> None:
    def wrong(text: str) -> None:
        assert exact(text, "5") == 0.0

    grows_as_its_text(wrong, text_of)


@pytest.mark.parametrize(
    ("truth", "found", "right"),
    [
        ("10^{-2}", "10^-2", True),
        ("10^-2", "0.01", True),
        ("10^-2", "0.1", False),
        ("x^{-3}", "x^-3", True),
        ("\\frac{1}{x^3}", "x^-3", True),
        ("x^{-3}y", "x^-3y", True),
        ("x^{-3}", "x^-2", False),
        ("2^{-10}", "2^-10", True),
        ("2^{-1}", "2^-10", False),
        ("e^{-x}", "e^-x", True),
    ],
)
def test_a_signed_power_needs_no_braces(truth: str, found: str, right: bool) -> None:
    assert exact(f"\\boxed{{{found}}}", truth) == right
