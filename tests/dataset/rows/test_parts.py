from __future__ import annotations

import pytest

from align.config.data import DataConfig
from align.dataset.rows.parts import load_parts
from align.errors import DataError, RecipeError


def test_columns_where_limit_and_stable_ids(write):
    path = write("a.jsonl", [{"q": f"{n}?", "n": n} for n in range(10)])
    parts = {
        "odd": {"columns": {"prompt": "q", "twice": "n * 2"}, "where": "n % 2 and twice > 2", "limit": 3},
        "all": {"columns": {"n": "n + 1"}},
    }
    odd, everything = load_parts(DataConfig(path=path, parts=parts))
    assert [row.id for row in odd.rows] == ["odd/3", "odd/5", "odd/7"]
    assert odd.rows[0].columns == {"q": "3?", "n": 3, "prompt": "3?", "twice": 6}
    assert (odd.found, odd.excluded) == (10, 5)  # stops once the limit is reached
    assert [row.columns["n"] for row in everything.rows] == list(range(1, 11))


def test_a_part_may_have_its_own_path(write):
    one, two = write("one.jsonl", [{"a": 1}]), write("two.jsonl", [{"a": 2}])
    parts = load_parts(DataConfig(path=one, parts={"x": {}, "y": {"path": two}}))
    assert [(part.name, part.source, part.rows[0].columns["a"]) for part in parts] == [
        ("x", one, 1),
        ("y", two, 2),
    ]


@pytest.mark.parametrize(
    ("part", "key", "message"),
    [
        ({"where": "n > 99"}, "data.parts.a.where", "true for none of 10"),
        ({"where": "m > 1"}, "data.parts.a.where", "row a/0: 'm > 1' fails"),
        (
            {"columns": {"prompt": "question"}},
            "data.parts.a.columns.prompt",
            "row a/0: 'question' is undefined",
        ),
        ({"columns": {"x": "1 / (n - 4)"}}, "data.parts.a.columns.x", "row a/4: "),
        ({"path": "nowhere.jsonl"}, "data.parts.a.path", "no such file"),
    ],
)
def test_faults_name_part_row_and_key(write, part, key, message):
    path = write("a.jsonl", [{"n": n} for n in range(10)])
    with pytest.raises(DataError, match=message) as caught:
        load_parts(DataConfig(path=path, parts={"a": part}), file="r.yaml")
    assert (caught.value.file, caught.value.key) == ("r.yaml", key)
    assert caught.value.remedy


def test_no_path():
    with pytest.raises(DataError, match="part 'train' has no path") as caught:
        load_parts(DataConfig(), file="r.yaml")
    assert "data.path" in caught.value.remedy


def test_all_weights_or_none(write):
    path = write("a.jsonl", [{"n": 1}])
    with pytest.raises(RecipeError, match="part 'b' has no weight but part 'a' has") as caught:
        load_parts(DataConfig(path=path, parts={"a": {"weight": 1}, "b": {}}))
    assert caught.value.key == "data.parts.b.weight"
