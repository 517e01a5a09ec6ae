"""The one object that a training loop reports to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console

from align.config.run import ReportConfig
from align.report.console import ProgressConsole
from align.report.html import write_report
from align.report.metrics import step_metrics
from align.report.rollouts import RolloutSink
from align.report.run_directory import RunDirectory
from align.report.sinks import JsonlSink, Sink, tensorboard_sink
from align.report.timing import peak_rss_gib
from align.types import StepStats

_SAMPLE_CHARS = 400

_log = logging.getLogger(__name__)


class Reporter:
    """Sends steps, evaluations and remarks to console, files and, at the end, the HTML report.

    A context manager: leaving it, also by an exception or Ctrl-C, closes everything.
    """

    def __init__(
        self,
        run: RunDirectory,
        report: ReportConfig,
        total_steps: int,
        start_step: int = 0,
        *,
        console: Console | None = None,
    ) -> None:
        """
        Args:
            run: where the files go.
            report: what is written.
            total_steps: number of the last step.
            start_step: steps done before this start (0, or the step of the resumed checkpoint);
                records of later steps are dropped.
            console: where to draw; default: standard output.
        """
        self._run, self._config = run, report
        self._sinks: list[Sink] = [JsonlSink(run.metrics, start_step)]
        if report.tensorboard:
            board = tensorboard_sink(run.tensorboard, start_step)
            self._sinks += [board] if board is not None else []
        if start_step == 0:  # after a checkpoint, the rewards' state in it says which failures stay
            run.reward_errors.unlink(missing_ok=True)
        self._rollouts = RolloutSink(run.rollouts, report.rollouts_every, total_steps, start_step)
        self._console: ProgressConsole | None = None
        if report.console:
            title = " · ".join(str(run.resolved[key]) for key in ("kind", "name") if key in run.resolved)
            self._console = ProgressConsole(title, total_steps, start_step, console=console)
        self._closed = False

    def step(self, stats: StepStats) -> dict[str, float]:
        """Record a finished step.

        Returns:
            All its metrics by name.
        """
        metrics = {**step_metrics(stats), "memory/driver_gib": peak_rss_gib()}
        for sink in self._sinks:
            sink.write(stats.step, metrics)
        self._rollouts.write(stats)
        if self._console is not None:
            self._console.step(stats.step, metrics, self._sample(stats))
        return metrics

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Record held-out results as ``eval/<part>``.

        Args:
            step: steps done when they were taken; 0 before the first.
            values: by part name.
        """
        named = {f"eval/{part.removeprefix('eval/')}": value for part, value in values.items()}
        for sink in self._sinks:
            sink.write(step, named)
        if self._console is not None:
            self._console.evaluation(step, named)
        _log.info("evaluation at step %d: %s", step, named)

    def message(self, text: str) -> None:
        """Show a remark and keep it in the log."""
        _log.info(text)
        if self._console is not None:
            self._console.message(text)

    def close(self) -> None:
        """Close the files and write ``report.html``; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._console is not None:
            self._console.close()
        for sink in self._sinks:
            sink.close()
        write_report(self._run.path)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:
                raise
            _log.exception("the report could not be written")  # the run's own error goes first

    def _sample(self, stats: StepStats) -> str:
        if not (self._config.show_sample and stats.groups):
            return ""
        group = stats.groups[-1]
        question, answer = group.prompt.messages[-1]["content"], group.completions[0].text
        return f"{question[:_SAMPLE_CHARS]}\n→ {answer[:_SAMPLE_CHARS]}"
