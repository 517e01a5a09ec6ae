import pytest
from tokenizers import Tokenizer

from align.algo.step_rewards import completion_steps, mean_advantages, token_advantages, token_ends
from align.config.grpo import AdvantageConfig
from align.types import Completion, Group, Outcome, Prompt, SampleScore

PIECES = {1: b"ab", 2: b"c", 3: "é".encode()[:1], 4: "é".encode()[1:], 0: b""}


def decode(tokens):
    return b"".join(PIECES[token] for token in tokens).decode("utf-8", errors="replace")


def test_character_ends_become_token_ends():
    tokens = [1, 2, 1, 2, 0]  # ab c ab c and an end-of-sequence token that spells nothing
    assert token_ends(tokens, [1, 2, 3, 4, 5], decode) == [1, 1, 2, 3, 3]
    assert token_ends(tokens, [6, 99], decode) == [5, 5]


def test_a_character_of_several_tokens_ends_with_its_last():
    tokens = [1, 3, 4, 2, 2]  # ab é c c
    assert decode(tokens) == "abécc"
    assert token_ends(tokens, [2, 3, 4], decode) == [1, 3, 4]


def test_ends_are_the_first_prefixes_that_spell_so_much():
    tokens = [1, 3, 4, 1, 2, 3, 4, 2, 1, 0]
    text = decode(tokens)
    for end in range(1, len(text)):
        first = next(t for t in range(1, 11) if decode(tokens[:t]).startswith(text[:end]))
        assert token_ends(tokens, [end], decode) == [first]


WEIGHTS = {"steps": 0.5, "answer": 1.0}
TOKENS = [1, 2, 1, 2, 0]
STEPS = Outcome("ok", 3.0, steps=((3, 1.0), (6, 2.0)))


def score(name: str, index: int, reward: float | None, **terms: Outcome) -> SampleScore:
    return SampleScore(name, index, reward, terms)


def test_step_rewards_are_weighed_and_the_rest_ends_the_completion():
    # 0.5 * 3 + 1 * 1 = 2.5; the answer's part of it is one more step
    found = completion_steps(
        score("a", 0, 2.5, steps=STEPS, answer=Outcome("ok", 1.0)), TOKENS, WEIGHTS, decode
    )
    assert found == [(2, 0.5), (5, 1.0), (5, 1.0)]


def test_without_other_terms_there_is_no_further_step():
    abstained = score("a", 0, 1.5, steps=STEPS, answer=Outcome("abstain"))
    assert completion_steps(abstained, TOKENS, WEIGHTS, decode) == [(2, 0.5), (5, 1.0)]


def test_a_failed_or_empty_sample_is_left_out():
    failed = score("a", 0, None, steps=STEPS, answer=Outcome("error"))
    assert completion_steps(failed, TOKENS, WEIGHTS, decode) is None
    assert completion_steps(score("a", 0, 1.5, steps=STEPS), [], WEIGHTS, decode) is None


def test_scores_are_matched_by_id_and_normalised_per_group():
    def group(name: str) -> Group:
        completions = [
            Completion(name, index, TOKENS, [-0.5] * 5, "abcabc", "stop", 0, index) for index in range(2)
        ]
        return Group(Prompt(name, (), [1]), completions)

    scores = [
        score("b", 1, 2.0, answer=Outcome("ok", 2.0)),
        score("a", 1, None, steps=Outcome("error")),
        score("b", 0, 0.0, answer=Outcome("ok", 0.0)),
        score("a", 0, 1.5, steps=STEPS),
    ]
    config = AdvantageConfig(supervision="process", eps=0.0)
    found = token_advantages([group("a"), group("b")], scores, WEIGHTS, config, decode)
    # a: rewards 0.5 and 1 become -1 and 1, so the first two tokens see 0; b: one step each at the end
    assert found == [[0.0, 0.0, 1.0, 1.0, 1.0], None, [-1.0] * 5, [1.0] * 5]
    assert mean_advantages(found) == [pytest.approx(0.6), None, -1.0, 1.0]
    assert mean_advantages([0.5, None]) == [0.5, None]
    with pytest.raises(KeyError):
        token_advantages([group("c")], scores, WEIGHTS, config, decode)


def test_a_real_tokenizer(repo_root):
    tokenizer = Tokenizer.from_file(str(repo_root / "recipes" / "quickstart" / "policy" / "tokenizer.json"))
    text = "First, 3 × 4 = 12 🙂.\nThen 12 - 5 = 7.\nAnswer: 7"
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    ends = [text.index("\n") + 1, text.rindex("\n") + 1, text.index("🙂") + 1, len(text)]
    found = token_ends(tokens, ends, tokenizer.decode)
    assert found[-1] == len(tokens)
    for end, count in zip(ends, found, strict=True):
        assert tokenizer.decode(tokens[:count]).startswith(text[:end])
        assert not tokenizer.decode(tokens[: count - 1]).startswith(text[:end])
