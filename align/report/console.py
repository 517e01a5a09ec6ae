"""Progress on the terminal: a live panel, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from align.report.panel import View, plain_line, render

_TIMED_STEPS = 20
_SHOWN_MESSAGES = 3


class ProgressConsole:
    """Shows one run. On a terminal it redraws itself twice a second until closed."""

    def __init__(
        self,
        title: str,
        total_steps: int,
        start_step: int = 0,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            title: heading of the panel.
            total_steps: number of the last step.
            start_step: steps done before this start.
            console: where to draw; default: standard output.
            clock: seconds, for elapsed time and ETA.
        """
        self._console = console or Console()
        self._clock = clock
        self._begun = clock()
        self._marks: deque[tuple[int, float]] = deque([(start_step, self._begun)], _TIMED_STEPS + 1)
        self.view = View(title, total_steps, start_step)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(get_renderable=self.panel, console=self._console, refresh_per_second=2)
            self._live.start()

    def step(self, step: int, metrics: Mapping[str, float], sample: str = "") -> None:
        """Show a finished step; ``sample`` is one prompt with its completion."""
        now = self._clock()
        self._marks.append((step, now))
        self.view.step, self.view.metrics, self.view.sample = step, metrics, sample
        first, since = self._marks[0]
        if step > first:
            self.view.eta = (now - since) / (step - first) * max(self.view.total - step, 0)
        if self._live is None:
            self._print(plain_line(self.view))

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Show held-out results; the first of each part stays beside the latest."""
        self.view.first_eval = {**values, **self.view.first_eval}
        self.view.last_eval = {**self.view.last_eval, **values}
        if self._live is None:
            found = " · ".join(f"{name} {value:.4f}" for name, value in values.items())
            self._print(f"step {step}: {found}")

    def message(self, text: str) -> None:
        """Show one remark."""
        if self._live is None:
            self._print(text)
        else:
            self.view.messages = [*self.view.messages, text][-_SHOWN_MESSAGES:]

    def panel(self) -> Panel:
        """The panel as of now."""
        self.view.elapsed = self._clock() - self._begun
        return render(self.view)

    def close(self) -> None:
        """Leave the last state on the screen; safe to call twice."""
        if self._live is not None:
            self._live.stop()

    def _print(self, line: str) -> None:
        """Without wrapping, so that one step stays one line in a log."""
        self._console.print(Text(line), soft_wrap=True)
