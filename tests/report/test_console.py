import io

import pytest
from rich.console import Console

from align.report.console import ProgressConsole
from align.report.metrics import step_metrics
from align.report.panel import View, clock_time, plain_line, render, reward_terms


def text_of(panel, width=110):
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(panel)
    return console.export_text()


@pytest.fixture
def metrics(make_step):
    return {
        **step_metrics(make_step()),
        "train/clip_share": 0.125,
        "train/grad_norm": 0.8,
        "mismatch/logprob_mean": 0.0317,
    }


def test_the_panel_shows_a_grpo_step(metrics):
    view = View("grpo · demo", 100, 12, metrics, elapsed=65.0, eta=3725.0, sample="user: 1+1?\n\n→ 2")
    text = text_of(render(view))
    for expected in (
        "grpo · demo", "step 12/100", "0:01:05 · eta 1:02:05", "1.000 ±0.816", "exact 1.000 ±0.816",
        "form 0.500", "kl 0.0100", "clip share 12.5%", "grad norm 0.8", "zero spread 50%", "truncated 25%",
        "tokens/s 4", "mean 0.0317", "rollout 4.0 s", "update 1.0 s", "→ 2",
    ):  # fmt: skip
        assert expected in text, expected
    assert "form.open" not in text  # components of a term stay in the files
    bar = next(line for line in text.splitlines() if "███" in line)
    assert bar.count("█") == 106  # the whole width between the frames


def test_the_stage_bar_is_divided_by_seconds():
    console = Console(record=True, width=54, file=io.StringIO())
    console.print(render(View("x", 1, 1, {"time/rollout": 3.0, "time/update": 1.0, "time/step": 4.0})))
    html = console.export_html(inline_styles=True)
    runs = [part.split("<")[0].count("█") for part in html.split(">") if "█" in part]
    assert runs == [38, 12]  # 50 cells as 3 : 1


def test_the_panel_shows_a_supervised_step():
    view = View("sft · demo", 50, 5, {"train/loss": 1.5, "train/lr": 5e-6, "train/tokens_per_second": 1234.0})
    text = text_of(render(view))
    for expected in ("step 5/50", "loss 1.5", "lr 5.00e-06", "tokens/s 1,234"):
        assert expected in text
    for absent in ("reward", "kl", "length", "█"):
        assert absent not in text


def test_a_panel_before_the_first_step_stands():
    assert "step 0/10" in text_of(render(View("demo", 10)))


def test_model_output_cannot_steer_the_terminal():
    text = text_of(render(View("demo", 1, sample="[red]x[/red] \x1b[31mred\x1b[0m\x07 end")))
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_long_sample_does_not_fill_the_screen():
    text = text_of(render(View("demo", 1, sample="\n\n".join(f"line {index}" for index in range(99)))))
    assert "line 9" in text
    assert "line 10" not in text


def test_narrow_terminals_do_not_break_it(metrics):
    assert "step 12/100" in text_of(render(View("demo", 100, 12, metrics)), width=40)


def test_the_plain_line_is_one_line(metrics):
    line = plain_line(View("demo", 100, 12, metrics, eta=61.0))
    assert "\n" not in line
    assert line.startswith("step 12/100 · reward 1.000±0.816 (exact 1.000, form 0.500) · loss 0.25")
    assert line.endswith("length 5 · 5.0 s (rollout 4.0, update 1.0) · eta 0:01:01")


def test_terms_are_told_from_their_components():
    names = ["reward/mean", "reward/a/mean", "reward/a/std", "reward/a.part/mean", "reward/b.c/mean"]
    assert reward_terms(names) == ["a", "b.c"]


def test_clock_time():
    assert [clock_time(seconds) for seconds in (0, 59.6, 3599, 90061)] == [
        "0:00:00", "0:01:00", "0:59:59", "25:01:01",
    ]  # fmt: skip


class Hand:
    now = 0.0

    def __call__(self):
        return self.now


def progress(terminal, total=10, start=0):
    out, hand = io.StringIO(), Hand()
    console = Console(file=out, force_terminal=terminal, width=100)
    return ProgressConsole("demo", total, start, console=console, clock=hand), out, hand


def test_eta_is_the_mean_of_the_last_steps():
    shown, _, hand = progress(False, total=10, start=4)
    hand.now = 30.0
    shown.step(5, {})
    assert shown.view.eta == 150.0  # 5 steps left at 30 s
    hand.now = 40.0
    shown.step(6, {})
    assert shown.view.eta == 80.0  # 4 left at 20 s
    hand.now = 50.0
    shown.step(10, {})
    assert shown.view.eta == 0.0


def test_old_steps_leave_the_eta():
    shown, _, hand = progress(False, total=1000)
    for step in range(1, 101):
        hand.now += 100.0 if step <= 80 else 1.0
        shown.step(step, {})
    assert shown.view.eta == 900.0


def test_off_a_terminal_each_step_is_a_line(metrics):
    shown, out, _ = progress(False)
    shown.evaluation(0, {"eval/maths": 0.25})
    shown.step(1, metrics)
    shown.message("saved [bold] checkpoint")
    shown.close()
    lines = out.getvalue().splitlines()
    assert lines[0] == "step 0: eval/maths 0.2500"
    assert lines[1].startswith("step 1/10 · ")
    assert lines[2:] == ["saved [bold] checkpoint"]


def test_on_a_terminal_the_last_state_stays(metrics):
    shown, out, _ = progress(True)
    shown.evaluation(0, {"eval/maths": 0.25})
    shown.step(1, metrics)
    shown.evaluation(1, {"eval/maths": 0.5})
    shown.close()
    shown.close()
    last = out.getvalue()
    assert "maths 0.500 (first 0.250)" in last
    assert "step 1/10" in last
