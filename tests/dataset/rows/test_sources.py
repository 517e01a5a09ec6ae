from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import time

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from align.dataset.rows.sources import load_rows
from align.errors import DataError

ROWS = [
    {"question": "1 + 1?", "answer": "2", "note": 'a "b", c\nd'},
    {"question": "你好 🙂\u2028?", "answer": "3", "note": ""},
]


def put(path, extension):
    if extension in (".jsonl", ".ndjson"):
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
    elif extension == ".json":
        text = json.dumps(ROWS, indent=2)
    elif extension in (".csv", ".tsv"):
        delimiter = "," if extension == ".csv" else "\t"
        with path.open("w", newline="", encoding="utf-8-sig") as stream:  # as Excel writes it
            writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
        return
    elif extension == ".arrow":
        table = pyarrow.Table.from_pylist(ROWS)
        with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
        return
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
        return
    path.write_text(text, encoding="utf-8")


KINDS = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow"]
PACKERS = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: pyarrow.Codec("zstd").compress(content, asbytes=True),
}


@pytest.mark.parametrize("packing", ["", *PACKERS])
@pytest.mark.parametrize("extension", KINDS)
def test_every_kind_of_file(tmp_path, extension, packing):
    path = tmp_path / f"rows{extension}"
    put(path, extension)
    if packing:
        packed = tmp_path / f"rows{extension}{packing}"
        packed.write_bytes(PACKERS[packing](path.read_bytes()))
        path = packed
    assert [dict(row) for row in load_rows(str(path))] == ROWS


def test_capitals_in_an_extension(tmp_path):
    put(tmp_path / "rows.jsonl", ".jsonl")
    (tmp_path / "rows.jsonl").rename(tmp_path / "ROWS.JSONL")
    assert load_rows(str(tmp_path / "ROWS.JSONL")) == ROWS


def test_several_frames_in_one_zst(tmp_path):
    """As ``cat a.zst b.zst`` and parallel packers write it."""
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(map(PACKERS[".zst"], lines)))
    assert load_rows(str(tmp_path / "a.jsonl.zst")) == ROWS


@pytest.mark.parametrize("packing", PACKERS)
def test_a_packed_file_that_is_cut_is_no_file(tmp_path, packing):
    packed = PACKERS[packing](b"".join(b'{"a": %d}\n' % n for n in range(5000)))
    for size in (len(packed) // 2, len(packed) - 1):
        (tmp_path / f"a.jsonl{packing}").write_bytes(packed[:size])
        with pytest.raises(DataError, match=r"cannot be read|not JSON"):
            load_rows(str(tmp_path / f"a.jsonl{packing}"))
    (tmp_path / f"a.jsonl{packing}").write_bytes(b"nothing packed here")
    with pytest.raises(DataError, match="cannot be read"):
        load_rows(str(tmp_path / f"a.jsonl{packing}"))


def test_both_forms_of_arrow(tmp_path):
    table = pyarrow.Table.from_pylist(ROWS)
    for name, new in (("file", pyarrow.ipc.new_file), ("stream", pyarrow.ipc.new_stream)):
        with new(str(tmp_path / f"{name}.arrow"), table.schema) as writer:
            writer.write_table(table)
        assert [dict(row) for row in load_rows(str(tmp_path / f"{name}.arrow"))] == ROWS


def test_what_save_to_disk_wrote(tmp_path):
    import datasets

    one, two = datasets.Dataset.from_list(ROWS), datasets.Dataset.from_list(ROWS[:1])
    one.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict(train=one, test=two).save_to_disk(tmp_path / "both")
    assert [dict(row) for row in load_rows(str(tmp_path / "one"))] == ROWS
    assert [dict(row) for row in load_rows(str(tmp_path / "one"), split="whatever")] == ROWS
    assert [dict(row) for row in load_rows(str(tmp_path / "both"))] == ROWS
    assert [dict(row) for row in load_rows(str(tmp_path / "both"), split="test")] == ROWS[:1]
    with pytest.raises(DataError, match="has no split 'dev'") as caught:
        load_rows(str(tmp_path / "both"), split="dev", file="r.yaml", key="data.path")
    assert "train, test" in caught.value.remedy
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="written by save_to_disk and cannot be read") as caught:
        load_rows(str(tmp_path / "one"), file="r.yaml", key="data.path")
    assert (caught.value.file, caught.value.key) == ("r.yaml", "data.path")


def test_shards_of_any_kind(tmp_path, write):
    write("train-00000-of-00002.jsonl", [{"a": 1}])
    write("train-00001-of-00002.jsonl", [{"a": 2, "b": 3}])
    write("train-more.jsonl", [{"a": 9}])
    assert load_rows(str(tmp_path)) == [{"a": 1, "b": None}, {"a": 2, "b": 3}]


def test_reading_leaves_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    put(tmp_path / "rows.parquet", ".parquet")
    load_rows(str(tmp_path / "rows.parquet"))
    assert sorted(os.listdir(tmp_path)) == ["rows.parquet"]


def test_json_lines_in_a_json_file_and_absent_columns(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}\n{"b": [2], "a": null}\n')
    assert load_rows(str(tmp_path / "a.json")) == [{"a": 1, "b": None}, {"b": [2], "a": None}]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"a": 1}', [{"a": 1}]),
        ('{\n  "a": 1\n}\n', [{"a": 1}]),
        ('{\n  "a": 1\n}\n\n{"a": 2}\n{\n"a": 3}', [{"a": 1}, {"a": 2}, {"a": 3}]),
        ('{"data": [{"a": 1}, {"a": 2}]}', [{"a": 1}, {"a": 2}]),
        ('{\n "version": "1.0",\n "data": [\n  {"a": 1},\n  {"a": 2}\n ]\n}', [{"a": 1}, {"a": 2}]),
        ('{"messages": [{"role": "user"}]}', [{"messages": [{"role": "user"}]}]),  # a row itself
        ('{"data": [{"a": 1}], "messages": [{"b": 1}]}', [{"data": [{"a": 1}], "messages": [{"b": 1}]}]),
        ('{"data": [{"role": "user", "content": "a"}]}', [{"data": [{"role": "user", "content": "a"}]}]),
        ('{"data": [1]}', [{"data": [1]}]),
    ],
)  # fmt: skip
def test_one_object_and_objects_of_several_lines(tmp_path, content, rows):
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(content)
        assert load_rows(str(tmp_path / name)) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"line 2: not JSON"),
        ("a.jsonl", '{"a": 1}\n\n[1]\n', r"line 3: a row is an object, not list"),
        ("a.jsonl", '{\n  "a": 1,\n  "b" 2\n}\n', r"line 3: not JSON"),
        ("a.jsonl", '{"a": 1} {"a": 2}\n', r"line 1: not JSON: Extra data \(column 10\)"),
        ("a.json", '{"train": [{"a": 1}], "test": [{"a": 2}]}', r"one object with the rows of train, test"),
        ("a.json", '{"a": {"0": 1, "1": 2}, "b": {"0": 3, "1": 4}}', r"one object of columns \(a, b\)"),
        ("a.json", '{"a": ["x", "y"], "b": ["z", "w"]}', r"one object of columns \(a, b\)"),
        ("a.json", '{"data": [{"a": 1}, {"a": 2}], "rows": [{"a": 1}]} 3', r"line 1: not JSON"),
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
        ("a.tsv", "a\tb\n1\n", r"line 2: 1 cells under 2 column names"),
        ("a.arrow", b"ARROW?", "not Arrow"),
        ("a.txt", "a", "not a data file"),
        ("a.jsonl.zip", "a", "not a data file"),
        ("a.xlsx", "a", "not a data file"),
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


@pytest.mark.parametrize(
    "path",
    ["no/such/file", "./gsm8k", "/nowhere", "data/rows.jsonl", "rows.csv.gz", "rows.zst.zip", "a.tsv.xz"],
)
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


def test_a_split_of_which_a_file_is_missing_is_refused(tmp_path):
    for number in (0, 2):
        put(tmp_path / f"train-{number:05d}-of-00003.jsonl", ".jsonl")
    with pytest.raises(DataError, match=r"1 of 3 files .* the first is train-00001-of-00003\.jsonl"):
        load_rows(str(tmp_path), split="train")
    put(tmp_path / "train-00001-of-00003.jsonl", ".jsonl")
    assert len(load_rows(str(tmp_path), split="train")) == 3 * len(ROWS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}\n{"a": ' + "9" * 5000 + "}\n", "line 2: a number too long to read"),
        ('{"a": ' + "[" * 100_000 + "}\n", "line 1: brackets inside brackets"),
        ("[" * 100_000, "the array: brackets inside brackets"),
    ],
)
def test_json_that_python_does_not_read_names_the_place(tmp_path, text, said):
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        load_rows(str(tmp_path / "rows.jsonl"), split="train")
    assert caught.value.file == str(tmp_path / "rows.jsonl")
