import json
import logging
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from align.report.sinks import JsonlSink, TensorBoardSink, tensorboard_sink


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_lines_are_on_disk_at_once(tmp_path):
    file = tmp_path / "metrics.jsonl"
    sink = JsonlSink(file, 0)
    sink.write(1, {"train/loss": 0.5})
    assert lines(file) == [{"step": 1, "train/loss": 0.5}]
    sink.write(2, {"train/loss": 0.25})
    sink.close()
    assert [line["step"] for line in lines(file)] == [1, 2]


def test_values_that_are_not_finite_are_null_and_the_file_stays_json(tmp_path):
    file = tmp_path / "metrics.jsonl"
    sink = JsonlSink(file, 0)
    sink.write(1, {"a": float("nan"), "b": float("inf"), "c": 1.0})
    sink.close()
    assert lines(file) == [{"step": 1, "a": None, "b": None, "c": 1.0}]


def test_resuming_drops_later_steps_and_a_torn_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    first = JsonlSink(file, 0)
    for step in range(6):
        first.write(step, {"x": step})
    first.close()
    with file.open("a") as stream:
        stream.write('{"step": 3, "x"')
    second = JsonlSink(file, 3)
    second.write(4, {"x": 40})
    second.close()
    assert [(line["step"], line["x"]) for line in lines(file)] == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 40)]


def test_a_fresh_start_drops_everything_but_the_first_evaluation(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 0, "eval/a": 1.0}\n{"step": 1}\n')
    JsonlSink(file, 0).close()
    assert lines(file) == [{"step": 0, "eval/a": 1.0}]


def scalars(folder, name):
    board = EventAccumulator(str(folder))
    board.Reload()
    return [(event.step, pytest.approx(event.value)) for event in board.Scalars(name)]


def test_tensorboard_reads_what_was_written_and_hides_what_was_redone(tmp_path):
    first = TensorBoardSink(tmp_path, 0)
    for step in (1, 2, 3):
        first.write(step, {"train/loss": step / 10})
    first.close()
    time.sleep(1.1)  # the files are read in order of the second in their names
    second = TensorBoardSink(tmp_path, 2)
    second.write(3, {"train/loss": 7.0})
    second.close()
    assert scalars(tmp_path, "train/loss") == [(1, 0.1), (2, 0.2), (3, 7.0)]


def test_without_tensorboard_the_log_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.WARNING):
        assert tensorboard_sink(tmp_path, 0) is None
    assert "pip install tensorboard" in caplog.text
