import io
import json

import pytest
from rich.console import Console

from align.config.run import ReportConfig
from align.report import reporter as module
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory
from align.types import StepStats


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path / "demo", {"kind": "grpo", "name": "demo"})
    yield run
    run.close()


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), width=120)


def entries(run):
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def test_a_run_leaves_everything(run, screen, make_step):
    with Reporter(run, ReportConfig(), 2, console=screen) as report:
        report.evaluation(0, {"maths": 0.25})
        metrics = report.step(make_step(step=1))
        report.step(make_step(step=2))
        report.message("saved step 2")
        report.evaluation(2, {"maths": 0.5})
    assert metrics["reward/mean"] == 1.0
    assert metrics["memory/driver_gib"] > 0
    found = entries(run)
    assert [entry["step"] for entry in found] == [0, 1, 2, 2]
    assert found[0] == {"step": 0, "eval/maths": 0.25}
    assert found[1]["reward/exact/mean"] == 1.0
    assert sorted(path.name for path in run.rollouts.iterdir()) == [
        "step-000001.parquet", "step-000002.parquet",
    ]  # fmt: skip
    assert len(list(run.tensorboard.iterdir())) == 1
    assert "Evaluation" in run.report.read_text()
    assert "saved step 2" in (run.path / "run.log").read_text()
    assert "step 2/2" in screen.file.getvalue()


def test_quiet_means_quiet(run, screen, make_step, capsys):
    settings = ReportConfig(console=False, tensorboard=False)
    with Reporter(run, settings, 1, console=screen) as report:
        report.step(make_step())
        report.message("kept in the log")
    assert screen.file.getvalue() == ""
    assert capsys.readouterr().out == ""
    assert not run.tensorboard.exists()
    assert "kept in the log" in (run.path / "run.log").read_text()


def test_the_sample_can_be_kept_off_the_screen(run, make_step):
    for shown in (True, False):
        screen = Console(file=io.StringIO(), width=120, force_terminal=True)
        with Reporter(run, ReportConfig(show_sample=shown), 1, console=screen) as report:
            report.step(make_step(text="the answer is 42"))
        assert ("the answer is 42" in screen.file.getvalue()) is shown


def test_a_failed_run_still_gets_its_report(run, screen, make_step):
    def interrupted():
        with Reporter(run, ReportConfig(), 5, console=screen) as report:
            report.step(make_step())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert run.report.is_file()


def test_the_fault_of_the_run_goes_before_a_fault_of_the_report(run, screen, make_step, monkeypatch):
    def broken(path):
        raise OSError("disk full")

    monkeypatch.setattr(module, "write_report", broken)
    with pytest.raises(ValueError, match="the run"), Reporter(run, ReportConfig(), 5, console=screen):
        raise ValueError("the run")
    assert "disk full" in (run.path / "run.log").read_text()
    with pytest.raises(OSError, match="disk full"), Reporter(run, ReportConfig(), 5, console=screen):
        pass


def test_resuming_continues_the_files(run, screen, make_step):
    with Reporter(run, ReportConfig(), 4, console=screen) as report:
        for step in (1, 2, 3):
            report.step(make_step(step=step))
    with Reporter(run, ReportConfig(), 4, start_step=2, console=screen) as report:
        report.step(make_step(step=3))
    assert [entry["step"] for entry in entries(run)] == [1, 2, 3]


def test_supervised_steps_are_reported_too(run, screen):
    with Reporter(run, ReportConfig(), 1, console=screen) as report:
        report.step(StepStats(1, {"train/loss": 2.0, "train/lr": 1e-5}, {"update": 1.0}, [], [], []))
    assert not run.rollouts.exists()
    assert "loss 2" in screen.file.getvalue()
