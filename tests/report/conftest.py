import pytest

from align.types import Completion, Group, Outcome, Prompt, SampleScore, StepStats


@pytest.fixture
def make_step():
    """One step of 2 prompts × 2 samples: term ``exact`` fails once, group ``b`` has no spread."""

    def make(step=1, text="answer"):
        def completion(prompt, index, length, end):
            logprobs = [-0.5] * (length - 1) + [-1.5]
            return Completion(
                f"train/{prompt}", index, [7] * length, logprobs, text, end, step - 1, 100 + index
            )

        def prompt(name, length):
            turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Ask {name}"})
            return Prompt(f"train/{name}", turns, [3] * length, {}, "train")

        def score(name, index, reward, exact, form):
            return SampleScore(f"train/{name}", index, reward, {"exact": exact, "form": form})

        def ok(value, **parts):
            return Outcome("ok", value, parts)

        groups = [
            Group(prompt("a", 5), [completion("a", 0, 2, "stop"), completion("a", 1, 4, "length")]),
            Group(prompt("b", 3), [completion("b", 0, 6, "stop"), completion("b", 1, 8, "stop")]),
        ]
        scores = [
            score("a", 0, 1.0, ok(1.0), ok(0.5, open=1.0)),
            score("a", 1, 0.0, ok(0.0), ok(0.0, open=0.0)),
            score("b", 0, 2.0, ok(2.0), Outcome("abstain")),
            score("b", 1, None, Outcome("timeout", detail="10 s"), ok(1.0, open=1.0)),
        ]
        return StepStats(
            step=step,
            metrics={"train/loss": 0.25, "train/kl": 0.01},
            seconds={"rollout": 4.0, "update": 1.0},
            groups=groups,
            scores=scores,
            advantages=[1.0, -1.0, 0.0, None],
        )

    return make
