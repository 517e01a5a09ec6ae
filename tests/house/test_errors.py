"""One error has one remedy, also where it quotes another."""

import pickle

from align.errors import ModelError, RewardError


def test_the_remedies_of_a_quoted_error_become_one():
    inner = RewardError("no column 'answer'", key="answer", remedy="map it")
    outer = RewardError(f"term 'a' failed: {inner}", key="rewards.terms.a", remedy="try it")
    assert outer.message == "term 'a' failed: answer: no column 'answer'"
    assert outer.remedy == "map it; try it"
    assert str(outer).count("remedy:") == 1
    assert str(pickle.loads(pickle.dumps(outer))) == str(outer)


def test_the_same_remedy_is_said_once():
    inner = ModelError("no file", remedy="copy it")
    assert ModelError(f"cannot read: {inner}", remedy="copy it").remedy == "copy it"
    assert ModelError(f"cannot read: {inner}").remedy == "copy it"
    assert ModelError("no file").remedy is None
