"""The pool on a real Ray: order, scope, hangs, crashes, budget, overlap."""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from align.algo.assemble import step_advantages
from align.cluster.reward_pool import RewardPool, Scorer
from align.config.grpo import GrpoConfig
from align.config.rewards import RewardsConfig
from align.errors import EngineError, RewardError
from align.reward.bank.ledger import BudgetSpent
from align.reward.bank.replay import read_failure, replay, reproduced
from align.reward.contract import Sample
from align.types import Completion, Group, Outcome, Prompt

MakePool = Callable[..., RewardPool]


@pytest.fixture(autouse=True)
def cluster(placement: Any) -> None:
    """A pool needs Ray and no slot on it."""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[MakePool]:
    """Build a pool from ``name=body of a reward file`` and settings; closed at the end."""
    pools = []

    def build(
        settings: Mapping[str, Any] | None = None,
        *,
        scorers: Mapping[str, Scorer] | None = None,
        **terms: Any,
    ) -> RewardPool:
        tree: dict[str, Any] = {"terms": {}, **(settings or {})}
        for name, term in terms.items():
            term = {"source": term} if isinstance(term, str) else dict(term)
            if "source" in term:
                file = tmp_path / f"{name}.py"
                file.write_text(term.pop("source"))
                term["function"] = str(file)
            tree["terms"][name] = term
        made = RewardPool(
            RewardsConfig.model_validate(tree),
            seed=7,
            compile_expression=lambda text: lambda columns: text in columns,
            max_new_tokens=32,
            run_dir=tmp_path / "run",
            scorers=scorers,
        )
        pools.append(made)
        return made

    yield build
    for made in pools:
        made.close()


def group(number: int, texts: list[str], step: int = 1, **columns: Any) -> Group:
    prompt = Prompt(f"sums/{number}", ({"role": "user", "content": "?"},), [1], columns, part="sums")
    return Group(
        prompt,
        [
            Completion(prompt.id, index, [1, 2], [0.0, 0.0], text, "stop", step, seed=0)
            for index, text in enumerate(texts)
        ],
    )


def failures(tmp_path: Path) -> list[dict[str, Any]]:
    file = tmp_path / "run" / "reward_errors.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


NUMBER = "def number(sample): return float(sample.completion)\n"


def test_scores_in_order_of_submission_with_weights_and_scope(pool: MakePool) -> None:
    bank = pool(
        number={"source": NUMBER, "weight": 2, "clip": [0, 3]},
        answer={"function": "exact_answer", "where": "answer"},
    )
    assert bank.collect() == []
    bank.submit(group(0, ["1", "5"], answer="5"))
    bank.submit(group(1, ["2"]))
    scores = bank.collect()
    assert [(score.prompt_id, score.sample_index, score.reward) for score in scores] == [
        ("sums/0", 0, 2.0),  # 2·1 + 0
        ("sums/0", 1, 7.0),  # 2·min(5, 3) + 1
        ("sums/1", 0, 4.0),  # 2·2, the answer term is out of scope
    ]
    assert [list(score.terms) for score in scores] == [["number", "answer"], ["number", "answer"], ["number"]]
    metrics = bank.metrics()
    assert metrics["reward/mean"] == pytest.approx(13 / 3)
    assert metrics["reward/number/mean"] == pytest.approx(8 / 3)
    assert metrics["reward/answer/mean"] == 0.5
    assert metrics["reward/wall_seconds"] >= metrics["reward/wait_seconds"] > 0
    assert set(bank.metrics()) == {"reward/left_out_share"}  # taken once
    assert bank.collect() == []


BAD = """
import os, re
def bad(sample):
    if sample.completion == 'die': os._exit(3)
    if sample.completion == 'raise': raise ValueError('no number')
    if sample.completion == 'hang': re.match(r'(a+)+$', 'a' * 60 + '!')  # in C: no signal gets through
    if sample.completion == 'eat': return float(len(bytearray(2**30)))
    if sample.completion == 'skip': return None
    return float(sample.completion)
"""


def test_every_kind_of_failure_costs_one_sample_and_a_worker_at_most(pool: MakePool, tmp_path: Path) -> None:
    bank = pool({"error_budget": 1.0}, bad={"source": BAD, "timeout": 2.0, "memory_mib": 256})
    bank.submit(group(0, ["1", "1"]))
    assert [score.reward for score in bank.collect()] == [1.0, 1.0]  # the pace is known: jobs are long now
    assert bank.metrics()["reward/bad/ok"] == 2
    asked = group(1, ["1", "hang", "die", "raise", "eat", "skip", "3"], step=4)
    bank.submit(asked)
    scores = bank.collect()
    kinds = ["ok", "timeout", "error", "error", "error", "abstain", "ok"]
    assert [score.terms["bad"].kind for score in scores] == kinds
    assert [score.reward for score in scores] == [1.0, None, None, None, None, None, 3.0]
    metrics = bank.metrics()
    assert {kind: metrics[f"reward/bad/{kind}"] for kind in ("ok", "abstain", "error", "timeout")} == {
        "ok": 2,
        "abstain": 1,
        "error": 3,
        "timeout": 1,
    }
    assert metrics["reward/left_out_share"] == pytest.approx(5 / 7)

    rows = {row["completion"]: row for row in failures(tmp_path)}
    assert {text: row["kind"] for text, row in rows.items()} == {
        "hang": "timeout",
        "die": "error",
        "raise": "error",
        "eat": "error",
    }
    assert {(row["term"], row["prompt_id"], row["weight_version"]) for row in rows.values()} == {
        ("bad", "sums/1", 4)
    }
    assert rows["hang"]["detail"] == "no answer within 2 s"
    assert "the call ended its process" in rows["die"]["detail"]
    assert rows["raise"]["detail"].endswith("ValueError: no number")
    assert rows["eat"]["detail"].endswith("MemoryError (limit 256 MiB)")
    for number in range(1, 5):
        failure = read_failure(tmp_path / "run" / "reward_errors.jsonl", number)
        assert reproduced(failure.recorded, replay(failure)), failure.recorded.detail

    config = GrpoConfig()  # failed and abstaining samples are in no baseline: mean 2, standard deviation 1
    advantages = step_advantages([asked], scores, config)
    unit = 1 / (1 + config.advantage.eps)
    assert advantages == [pytest.approx(-unit), None, None, None, None, None, pytest.approx(unit)]
    bank.submit(group(2, ["1", "2"]))
    assert [score.reward for score in bank.collect()] == [1.0, 2.0]


def word_count(samples: Sequence[Sample]) -> list[Outcome]:
    return [
        Outcome("error", detail="too long")
        if sample.completion == "x"
        else Outcome("ok", len(sample.completion))
        for sample in samples
    ]


def test_models_are_asked_once_a_step_with_all_samples_in_scope(pool: MakePool, tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def scorer(samples: Sequence[Sample]) -> list[Outcome]:
        calls.append([sample.completion for sample in samples])
        return word_count(samples)

    bank = pool(
        {"error_budget": 0.25, "error_window": 8},
        scorers={"model": scorer},
        number={"source": NUMBER},
        model={"model": "runs/rm", "weight": 10, "where": "chat"},
    )
    bank.submit(group(0, ["1", "22"], chat=1))
    bank.submit(group(1, ["3"]))
    bank.submit(group(2, ["444"], chat=1))
    scores = bank.collect()
    assert calls == [["1", "22", "444"]]
    assert [score.reward for score in scores] == [11.0, 42.0, 3.0, 474.0]
    assert [list(score.terms) for score in scores] == [
        ["number", "model"],
        ["number", "model"],
        ["number"],
        ["number", "model"],
    ]
    assert bank.metrics()["reward/model/mean"] == 2.0
    bank.submit(group(3, ["x", "x"], chat=1))
    assert [score.reward for score in bank.collect()] == [None, None]
    assert [(row["term"], row["kind"]) for row in failures(tmp_path)] == [("number", "error")] * 2 + [
        ("model", "error")
    ] * 2
    bank.submit(group(3, ["x"], chat=1))
    with pytest.raises(BudgetSpent, match="3 of the last 7 samples"):
        bank.collect()


def test_a_bank_of_models_alone_starts_no_process(pool: MakePool) -> None:
    bank = pool(scorers={"model": word_count}, model={"model": "runs/rm"})
    bank.smoke([group(9, []).prompt])
    bank.submit(group(0, ["four"]))
    assert [score.reward for score in bank.collect()] == [4.0]
    with pytest.raises(RewardError, match="nothing computes the reward model runs/rm"):
        pool(model={"model": "runs/rm"})


def test_a_model_that_fails_its_start_up_call_ends_the_start(pool: MakePool) -> None:
    def broken(samples: Sequence[Sample]) -> list[Outcome]:
        return [Outcome("error", detail="no template")] * len(samples)

    bank = pool(scorers={"model": broken}, model={"model": "runs/rm"})
    with pytest.raises(RewardError, match="term 'model' failed its start-up call on row sums/9: no template"):
        bank.smoke([group(9, []).prompt])


def test_state_continues_in_another_pool(pool: MakePool) -> None:
    settings = {"combine": "constrained", "error_budget": 0.125, "error_window": 8}
    terms = {
        "number": {"source": NUMBER, "calibration": "running"},
        "safe": {"model": "runs/rm", "constraint": {"at_least": 3, "lr": 0.5}},
    }
    first, second = (pool(settings, scorers={"safe": word_count}, **terms) for _ in range(2))
    first.submit(group(0, ["1", "2", "ab"]))
    first.collect()
    assert first.metrics()["reward/safe/multiplier"] == 0.0
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for bank in (first, second):
        bank.submit(group(1, ["5"]))
    # "ab" is no number; of 1, 2 and 5 mean and deviation are 8/3 and 1.699673; the safe mean was 1
    expected = (5 - 8 / 3) / 1.6996731711975948 + 0.5 * (3 - 1) * (1 - 3)
    for bank in (first, second):
        assert [score.reward for score in bank.collect()] == [pytest.approx(expected)]
        assert bank.metrics()["reward/safe/multiplier"] == 1.0
    second.submit(group(2, ["x"]))  # one failure of eight is allowed, and one was before the checkpoint
    with pytest.raises(BudgetSpent, match=r"(?s)2 of the last 5 .* float: 'ab'"):
        second.collect()


def test_a_crash_inside_a_list_function_costs_one_sample(pool: MakePool) -> None:
    source = (
        "import os\n"
        "def crash(completions, **kwargs):\n"
        "    if any(turn[0]['content'] == 'die' for turn in completions): os._exit(3)\n"
        "    return [float(len(completions))] * len(completions)\n"
    )
    bank = pool({"error_budget": 1.0}, crash=source)
    bank.submit(group(0, ["a", "b", "c"]))
    bank.submit(group(1, ["a", "die"]))
    assert [score.reward for score in bank.collect()] == [3.0, 3.0, 3.0, 1.0, None]


@pytest.mark.parametrize("end", ["os._exit(3)", "x = [0.0] * 10**9"])
def test_what_goes_together_with_a_call_that_costs_a_worker_is_scored(pool: MakePool, end: str) -> None:
    source = f"""
        import os
        def number(sample):
            if sample.completion == "die": {end}
            return float(sample.completion)
    """
    bank = pool(
        {"error_budget": 1.0, "workers": 1},
        number={"source": textwrap.dedent(source), "timeout": 1.0, "memory_mib": 512},
    )
    for number in range(4):  # its pace is known afterwards
        bank.submit(group(number, ["1", "2"]))
    bank.collect()
    for number in range(9):
        bank.submit(group(number, ["1", "die"] if number == 4 else ["3", "4"]))
    scores = bank.collect()
    assert [score.reward for score in scores] == [3.0, 4.0] * 4 + [1.0, None] + [3.0, 4.0] * 4
    assert [score.terms["number"].kind for score in scores].count("error") == 1


def test_error_budget_stops_the_run_with_the_first_traceback(pool: MakePool) -> None:
    bank = pool({"error_budget": 0.25, "error_window": 8}, number=NUMBER)
    bank.submit(group(0, ["1", "x", "y"]))
    assert len(bank.collect()) == 3
    bank.submit(group(1, ["z", "2"]))
    with pytest.raises(BudgetSpent, match="could not convert string to float: 'x'") as caught:
        bank.collect()
    assert caught.value.exit_code == 1
    with pytest.raises(BudgetSpent):
        bank.submit(group(2, ["1"]))


SLOW = """
import os, time
def note(): open({file!r}, 'a').write(f'{{os.getpid()}}\\n')
"""
ONE = "def slow(sample): time.sleep(1); note(); return 1.0\n"
LIST = """
def slow(completions, **kwargs):
    for _ in completions: time.sleep(1); note()
    return [1.0] * len(completions)
"""
ASYNC = """
import asyncio
async def slow(sample): await asyncio.sleep(1); note(); return 1.0
"""


@pytest.mark.parametrize("body", [ONE, LIST, ASYNC], ids=["one", "list", "async"])
def test_scoring_goes_on_while_the_caller_is_elsewhere_and_is_spread(
    pool: MakePool, tmp_path: Path, body: str
) -> None:
    done = tmp_path / "done.txt"
    bank = pool({"workers": 2}, slow=SLOW.format(file=str(done)) + body)
    bank.smoke([group(9, []).prompt])
    done.unlink()
    bank.submit(group(0, ["a"] * 8))
    limit = time.monotonic() + 60  # no call of the pool meanwhile: the engine samples
    while time.monotonic() < limit and (not done.exists() or len(done.read_text().split()) < 8):
        time.sleep(0.05)
    shares = Counter(done.read_text().split())
    assert len(shares) == 2  # both workers
    assert min(shares.values()) >= 2
    time.sleep(0.2)  # the answers come in
    assert [score.reward for score in bank.collect()] == [1.0] * 8
    metrics = bank.metrics()
    assert metrics["reward/hidden_share"] > 0.5
    bank.submit(group(1, ["a"] * 2))
    bank.collect()
    shown = bank.metrics()
    assert shown["reward/hidden_share"] < 0.5
    assert shown["reward/wall_seconds"] >= shown["reward/wait_seconds"] > 0.9


def test_random_choices_do_not_depend_on_the_worker(pool: MakePool) -> None:
    source = "import random\ndef dice(sample): return random.random()\n"
    rolls = []
    for workers in (1, 2):
        bank = pool({"workers": workers}, dice=source)
        bank.submit(group(0, ["a", "b", "c"], step=3))
        bank.submit(group(1, ["a"], step=3))
        bank.submit(group(0, ["a"], step=4))
        rolls.append([score.reward for score in bank.collect()])
    assert rolls[0] == rolls[1]
    assert len(set(rolls[0])) == 5


def test_workers_have_one_thread_and_run_functions_in_their_main_thread(pool: MakePool) -> None:
    source = (
        "import os, threading\n"
        "def place(sample):\n"
        "    main = threading.current_thread() is threading.main_thread()\n"
        "    return {'main': main, 'one': os.environ['OMP_NUM_THREADS'] == '1'}\n"
    )
    bank = pool(place=source, answer={"function": "exact_answer"})
    bank.submit(group(0, ["\\boxed{9^{9^{9^{9}}}}", "\\boxed{\\frac{10}{2}}"], answer="5"))
    scores = bank.collect()
    assert scores[0].terms["place"].parts == {"main": 1.0, "one": 1.0}
    assert [score.terms["answer"].value for score in scores] == [0.0, 1.0]  # math-verify's alarm works


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("while True: pass", "no answer within 1 s"),
        ("import os; os._exit(1)", "the call ended its process"),
    ],
)
def test_smoke_call_raises_before_anything_else_starts(
    pool: MakePool, tmp_path: Path, body: str, message: str
) -> None:
    bank = pool(bad={"source": f"def bad(sample):\n    {body}\n", "timeout": 1.0})
    with pytest.raises(RewardError, match=message) as caught:
        bank.smoke([group(0, [], answer="4").prompt])
    assert (caught.value.key, caught.value.exit_code) == ("rewards.terms.bad", 2)
    assert not failures(tmp_path)


def test_workers_that_cannot_start_end_the_run(pool: MakePool) -> None:
    """The file imports here and not in a worker."""
    source = (
        f"import os\nif os.getpid() != {os.getpid()}: raise OSError('no disk')\ndef f(sample): return 1.0\n"
    )
    bank = pool(f=source)
    bank.submit(group(0, ["a"]))
    with pytest.raises(EngineError, match="failed to start 3 times in a row") as caught:
        bank.collect()
    assert "no disk" in caught.value.message
    assert caught.value.exit_code == 1
