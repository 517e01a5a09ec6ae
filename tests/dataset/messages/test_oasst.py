"""OpenAssistant's trees in both forms in which they are published."""

from __future__ import annotations

import pytest

from align.config.data import DataConfig
from align.dataset.messages.oasst import best_path
from align.dataset.messages.read import conversation_of, prompt_of
from align.dataset.rows.parts import load_parts
from align.errors import DataError


def node(name, parent, role, text, rank=None, **extra):
    return {
        "message_id": name,
        "parent_id": parent,
        "role": role,
        "text": text,
        "rank": rank,
        "lang": "en",
        **extra,
    }


FLAT = [
    node("b2", "a", "assistant", "worse", 1),
    node("a", None, "prompter", "Why?"),
    node("b1", "a", "assistant", "best", 0),
    node("b3", "a", "assistant", "unranked"),
    node("d", "c", "assistant", "last", 0),
    node("c", "b1", "prompter", "And?"),
    node("e", "d", "prompter", "never answered"),
    node("x", None, "prompter", "Alone?", lang="de"),
    node("y", None, "prompter", "Gone?", deleted=True),
    node("z", None, "prompter", "Kept?"),
    node("z1", "z", "assistant", "rude", 0, deleted=True),
    node("z2", "z", "assistant", "kind", 1),
]
BEST = [
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "best"},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "last"},
]


def nested(name):
    own = next(each for each in FLAT if each["message_id"] == name)
    return {**own, "replies": [nested(each["message_id"]) for each in FLAT if each["parent_id"] == name]}


def test_the_best_ranked_path():
    assert best_path(nested("a")) == BEST
    assert best_path(nested("x")) == [{"role": "user", "content": "Alone?"}]
    assert [turn["content"] for turn in best_path(nested("z"))] == ["Kept?", "kind"]


def test_one_tree_a_row():
    row = {"message_tree_id": "a", "prompt": nested("a")}
    assert list(conversation_of(row)) == BEST
    assert conversation_of(row, system="Be kind.")[0]["role"] == "system"
    assert list(prompt_of(row)) == BEST[:1]


def test_one_message_a_row(write):
    path = write("a.jsonl", FLAT)
    (part,) = load_parts(DataConfig(path=path))
    assert [row.id for row in part.rows] == ["train/1", "train/7", "train/9"]
    assert part.found == 3
    assert part.rows[0].columns["messages"] == BEST
    assert part.rows[0].columns["lang"] == "en"
    where = {"where": "messages | length > 1 and lang == 'en'"}
    (part,) = load_parts(DataConfig(path=path, parts={"o": where}))
    assert [row.id for row in part.rows] == ["o/1", "o/9"]
    assert part.excluded == 1
    (part,) = load_parts(DataConfig(path=path, parts={"o": {"columns": {"prompt": "text"}}}))
    assert prompt_of(part.rows[0].columns)[0]["content"] == "Why?"


def test_broken_trees(write):
    with pytest.raises(DataError, match="row train/0: the tree: turn 1 has no content"):
        load_parts(DataConfig(path=write("a.jsonl", [node("a", None, "prompter", None)])))
    with pytest.raises(DataError, match="no message of 1 is the root of a tree"):
        load_parts(DataConfig(path=write("b.jsonl", [node("a", "elsewhere", "prompter", "Hi")])))
    round_trip = [
        node("a", "b", "prompter", "Hi"),
        node("b", "a", "assistant", "Ho"),
        node("c", None, "prompter", "x"),
    ]
    (part,) = load_parts(DataConfig(path=write("c.jsonl", round_trip)))
    assert [row.id for row in part.rows] == ["train/2"]


def test_other_rows_with_such_columns_are_rows(write):
    rows = [node("a", None, "user", "Hi"), node("b", "a", "assistant", "Ho")]
    assert len(load_parts(DataConfig(path=write("a.jsonl", rows)))[0].rows) == 2
