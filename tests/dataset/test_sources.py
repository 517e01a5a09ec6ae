from __future__ import annotations

import csv
import gzip
import json
import os
import time

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from align.dataset.sources import load_rows
from align.errors import DataError

ROWS = [
    {"question": "1 + 1?", "answer": "2", "note": 'a "b", c\nd'},
    {"question": "你好 🙂\u2028?", "answer": "3", "note": ""},
]


def put(path, extension):
    if extension == ".jsonl":
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
    elif extension == ".json":
        text = json.dumps(ROWS, indent=2)
    elif extension == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as stream:  # as Excel writes it
            writer = csv.DictWriter(stream, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
        return
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
        return
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("extension", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_kind_of_file(tmp_path, extension, gz):
    path = tmp_path / f"rows{extension}"
    put(path, extension)
    if gz:
        packed = tmp_path / f"rows{extension}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    assert [dict(row) for row in load_rows(str(path))] == ROWS


def test_reading_leaves_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    put(tmp_path / "rows.parquet", ".parquet")
    load_rows(str(tmp_path / "rows.parquet"))
    assert sorted(os.listdir(tmp_path)) == ["rows.parquet"]


def test_json_lines_in_a_json_file_and_absent_columns(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}\n{"b": [2], "a": null}\n')
    assert load_rows(str(tmp_path / "a.json")) == [{"a": 1, "b": None}, {"b": [2], "a": None}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"line 2: not JSON"),
        ("a.jsonl", '{"a": 1}\n\n[1]\n', r"line 3: a row is an object, not list"),
        ("a.jsonl", '{\n  "a": 1\n}\n', r"line 1: not JSON"),
        ("a.json", '[{"a": 1},\n {"a" 2}]', r"line 2: not JSON"),
        ("a.json", '[{"a": 1}, 2]', r"item 2: a row is an object, not int"),
        ("a.jsonl", "", "has no rows"),
        ("a.json", "[]", "has no rows"),
        ("a.csv", "", "has no rows"),
        ("a.csv", "a,b\n", "has no rows"),
        ("a.csv", "a,b\n1,2\n3\n", r"line 3: 1 cells under 2 column names"),
        ("a.csv", "a,b\n1,2,3\n", r"line 2: 3 cells under 2"),
        ("a.csv", 'a,b\n1,"2\n', "line 2"),
        ("a.csv", "a,a\n1,2\n", "column name occurs twice"),
        ("a.jsonl", b"\xff\xfe{}", "not UTF-8"),
        ("a.jsonl.gz", b"no gzip", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999)[:40], "cannot be read"),
        ("a.parquet", b"PAR?", "not Parquet"),
        ("a.txt", "a", "not a data file"),
    ],
)
def test_malformed_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        load_rows(str(path), file="r.yaml", key="data.path")
    assert str(path) in str(caught.value)
    assert caught.value.remedy


def test_folder_splits(tmp_path, write):
    write("train.jsonl", [{"a": 1}])
    write("test.jsonl", [{"a": 2}])
    assert load_rows(str(tmp_path))[0]["a"] == 1
    assert load_rows(str(tmp_path), split="test")[0]["a"] == 2
    with pytest.raises(
        DataError, match=r"no split 'dev'; data files there: test\.jsonl, train\.jsonl"
    ) as caught:
        load_rows(str(tmp_path), split="dev")
    assert "test, train" in caught.value.remedy


def test_folder_with_one_file(tmp_path, write):
    write("whatever.jsonl", [{"a": 1}])
    (tmp_path / "README.md").write_text("about")
    assert load_rows(str(tmp_path), split="train")[0]["a"] == 1


def test_folder_with_shards_and_subset(tmp_path):
    """As the hub lays out a data set with configurations."""
    for place, value in (("data", 0), ("main", 2)):
        (tmp_path / place).mkdir()
        for shard in (0, 1):
            table = pyarrow.table({"a": [value + shard]})
            pyarrow.parquet.write_table(table, tmp_path / place / f"train-0000{shard}-of-00002.parquet")
    assert [row["a"] for row in load_rows(str(tmp_path))] == [0, 1]
    assert [row["a"] for row in load_rows(str(tmp_path), subset="main")] == [2, 3]
    assert [row["a"] for row in load_rows(str(tmp_path), subset="no folder")] == [0, 1]


def test_folder_faults(tmp_path, write):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no split 'train'; data files there: none"):
        load_rows(str(tmp_path / "empty"))
    write("two/train.jsonl", [{"a": 1}])
    write("two/train.json", [{"a": 1}])
    with pytest.raises(DataError, match=r"more than once: train\.jsonl, train\.json"):
        load_rows(str(tmp_path / "two"))


@pytest.mark.parametrize("path", ["no/such/file", "./gsm8k", "/nowhere", "data/rows.jsonl", "rows.csv.gz"])
def test_missing_local_path(path):
    with pytest.raises(DataError, match="no such file or folder") as caught:
        load_rows(path, file="r.yaml", key="data.path")
    assert (caught.value.file, caught.value.key) == ("r.yaml", "data.path")


@pytest.mark.parametrize("offline", [True, False])
def test_hub_out_of_reach_is_one_quick_error(tmp_path, monkeypatch, offline):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for module in ("datasets.config", "huggingface_hub.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    start = time.monotonic()
    with pytest.raises(DataError, match="'openai/gsm8k' is no local file or folder") as caught:
        load_rows("openai/gsm8k", subset="main", file="r.yaml", key="data.path")
    assert time.monotonic() - start < 10
    assert ("HF_HUB_OFFLINE is set" if offline else "cannot be reached") in caught.value.message
    assert "data.path=LOCAL" in caught.value.remedy
    assert huggingface_hub.constants.HF_HUB_OFFLINE is offline


def test_hub_data_set_in_the_cache(tmp_path, monkeypatch):
    """Without a hub, what the libraries have cached still loads."""
    import datasets

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    seen = {}

    def load_dataset(name, subset, *, split):
        seen.update(name=name, subset=subset, split=split, offline=datasets.config.HF_HUB_OFFLINE)
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [dict(row) for row in load_rows("openai/gsm8k", subset="main", split="test")] == ROWS
    assert seen == {"name": "openai/gsm8k", "subset": "main", "split": "test", "offline": True}
