import html.parser
import json

import pytest
import typer
from typer.testing import CliRunner

from align.cli.report import report as report_command
from align.errors import RecipeError
from align.report.figures import figures
from align.report.history import read_run
from align.report.html import write_report
from align.report.metrics import step_metrics
from align.report.rollouts import RolloutSink
from align.report.sinks import JsonlSink

HOSTILE = "</script><script>alert('x')</script><img src=http://evil>"


@pytest.fixture
def run(tmp_path, make_step):
    """A finished run of 5 steps as its files."""
    path = tmp_path / "demo"
    path.mkdir()
    (path / "resolved.yaml").write_text("kind: grpo\nname: demo <b>\n")
    (path / "environment.json").write_text(json.dumps({"python": "3.11.7", "packages": {"torch": "2.13.0"}}))
    sink = JsonlSink(path / "metrics.jsonl", 0)
    rollouts = RolloutSink(path / "rollouts", every=1, total_steps=5, start_step=0)
    sink.write(0, {"eval/maths": 0.25})
    for step in range(1, 6):
        stats = make_step(step=step, text=HOSTILE if step == 5 else f"answer of step {step}")
        stats.metrics |= {"mismatch/logprob_mean": 0.03, "memory/trainer_gib": 2.0, f"eval/{HOSTILE}": 1.0}
        scoring = {"hidden_share": 0.1 * step, "wall_seconds": 10.0, "wait_seconds": 10.0 - step}
        stats.metrics |= {f"reward/{name}": value for name, value in scoring.items()}
        sink.write(step, step_metrics(stats))
        rollouts.write(stats)
    sink.write(5, {"eval/maths": 0.75})
    sink.close()
    return path


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._script = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._script = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        self.text += "" if self._script else data


def test_the_page_tells_the_run(run):
    page = Page(write_report(run).read_text())
    for expected in (
        "Run demo", "5 steps", "100 completion tokens", "0.2500 (0)", "0.7500 (5)", "+0.5000",
        "Completions at step 1", "Completions at step 3", "Completions at step 5", "answer of step 3",
        "abstain", "name: demo <b>", "torch 2.13.0",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert "Completions at step 2" not in page.text


def test_the_page_needs_nothing_else_and_runs_nothing_foreign(run):
    text = write_report(run).read_text()
    page = Page(text)
    assert not [attrs for _, attrs in page.tags if "src" in attrs or "href" in attrs]
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "script", "body", "h1", "h2", "p", "div", "table",
        "tr", "th", "td", "span", "pre",
    }  # fmt: skip
    assert HOSTILE not in text
    assert HOSTILE in page.text  # shown as text
    assert text.count("plotly.js v") == 1  # the library is inlined once


def test_each_plot_appears_with_its_metric(run):
    found = {figure.layout.title.text: figure for figure in figures(read_run(run).series)}
    assert set(found) == {
        "Reward", "Reward by term, mean", "Held-out evaluation", "Loss", "KL to the reference",
        "Completion length, tokens", "Shares of samples and groups",
        "Scoring hidden behind sampling", "Scoring, seconds",
        "Log-probability difference, trainer and engine", "Tokens per second", "Memory, GiB",
        "Seconds per stage",
    }  # fmt: skip
    (hidden,) = found["Scoring hidden behind sampling"].data
    assert list(hidden.y) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [list(line.y)[-1] for line in found["Scoring, seconds"].data] == [10.0, 5.0]
    page = write_report(run).read_text()
    assert '"text":"Scoring hidden behind sampling"' in page
    assert '"text":"Scoring, seconds"' in page
    terms = found["Reward by term, mean"].data
    assert [line.name for line in terms] == ["exact", "form"]
    assert list(terms[0].x) == [1, 2, 3, 4, 5]
    assert list(terms[0].y) == [1.0] * 5
    assert [bar.name for bar in found["Seconds per stage"].data] == ["rollout", "update"]
    assert found["Seconds per stage"].layout.barmode == "stack"
    maths = next(line for line in found["Held-out evaluation"].data if line.name == "maths")
    assert (list(maths.x), list(maths.y)) == ([0, 5], [0.25, 0.75])


def test_the_reward_band_is_mean_and_spread():
    series = {"reward/mean": [(1, 1.0), (2, 2.0), (3, 3.0)], "reward/std": [(1, 0.5), (3, 1.0)]}
    (figure, *_) = figures(series)
    assert list(figure.data[1].x) == [1, 3, 3, 1]
    assert list(figure.data[1].y) == [1.5, 4.0, 2.0, 0.5]


def test_later_lines_count_and_broken_ones_do_not(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "a": 1, "b": null}\n{"step": 1, "a": 2}\n{"step": 2, "a"'
    )
    history = read_run(tmp_path)
    assert history.series == {"a": [(1, 2)]}
    assert history.last_step == 1


@pytest.mark.parametrize("missing", ["metrics.jsonl", "environment.json", "resolved.yaml", "rollouts"])
def test_whatever_is_missing_is_left_out(run, missing):
    path = run / missing
    for file in path.iterdir() if path.is_dir() else [path]:
        file.unlink()
    assert "Run demo" in Page(write_report(run).read_text()).text


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "resolved.yaml").write_text("kind: sft\n")
    assert "No metrics yet" in Page(write_report(tmp_path).read_text()).text


def test_no_run_is_one_clear_error(run):
    with pytest.raises(RecipeError, match="not a run directory") as caught:
        write_report(run.parent)
    assert "demo" in caught.value.remedy  # the runs that lie in there


def test_the_command_writes_it_again(run):
    app = typer.Typer()
    app.command()(report_command)
    done = CliRunner().invoke(app, [str(run)])
    assert done.exit_code == 0, done.output
    assert (run / "report.html").stat().st_size > 1_000_000
