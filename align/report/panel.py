"""The live panel as a pure function of what is known: metrics in, rich renderables out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red", "bright_black")
_SAMPLE_LINES = 10

#: Label → metrics shown beside it, each with its format; what a run does not have is left out.
_ROWS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "policy": (
        ("loss", "train/loss", ".4g"),
        ("kl", "train/kl", ".4f"),
        ("clip share", "train/clip_share", ".1%"),
        ("grad norm", "train/grad_norm", ".3g"),
        ("entropy", "train/entropy", ".3f"),
        ("balance loss", "train/balance_loss", ".4g"),
        ("lr", "train/lr", ".2e"),
    ),
    "groups": (
        ("zero spread", "group/zero_spread_share", ".0%"),
        ("left out", "reward/left_out_share", ".1%"),
        ("errors", "outcome/error_share", ".1%"),
        ("timeouts", "outcome/timeout_share", ".1%"),
    ),
    "length": (
        ("mean", "completion/tokens_mean", ".0f"),
        ("max", "completion/tokens_max", ".0f"),
        ("truncated", "completion/truncated_share", ".0%"),
    ),
    "speed": (
        ("tokens/s", "tokens/per_second", ",.0f"),
        ("rollout tokens/s", "tokens/rollout_per_second", ",.0f"),
        ("tokens/s", "train/tokens_per_second", ",.0f"),
    ),
    "engine": (
        ("|Δ logprob| mean", "mismatch/logprob_mean", ".4f"),
        ("max", "mismatch/logprob_max", ".3f"),
        ("capped", "mismatch/capped_share", ".1%"),
        ("probe", "sync/probe_mean", ".4f"),
    ),
    "memory": (
        ("trainer GiB", "memory/trainer_gib", ".1f"),
        ("engine GiB", "memory/engine_gib", ".1f"),
        ("driver GiB", "memory/driver_gib", ".1f"),
    ),
}


@dataclass(slots=True)
class View:
    """What the panel shows."""

    title: str
    total: int
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    elapsed: float = 0.0
    """Seconds since this start."""
    eta: float | None = None
    """Seconds to the last step, once a step has been timed."""
    first_eval: dict[str, float] = field(default_factory=dict)
    last_eval: dict[str, float] = field(default_factory=dict)
    sample: str = ""
    messages: list[str] = field(default_factory=list)


def render(view: View) -> Panel:
    """The whole panel."""
    parts: list[RenderableType] = [_progress(view)]
    parts.extend(part for part in (_numbers(view), _stages(view.metrics)) if part is not None)
    if view.sample:
        lines = [line for line in _printable(view.sample).splitlines() if line.strip()]
        shown = Text("\n".join(lines[:_SAMPLE_LINES]), style="dim", overflow="fold")
        parts.append(Panel(shown, title="latest sample", title_align="left", border_style="bright_black"))
    parts.extend(Text(_printable(message), style="yellow") for message in view.messages)
    return Panel(Group(*parts), title=Text(view.title), title_align="left", border_style="cyan")


def plain_line(view: View) -> str:
    """The same in one line, for logs and pipes."""
    metrics = view.metrics
    parts = [f"step {view.step}/{view.total}"]
    if "reward/mean" in metrics:
        terms = ", ".join(f"{term} {metrics[f'reward/{term}/mean']:.3f}" for term in reward_terms(metrics))
        spread = f"±{metrics['reward/std']:.3f}" if "reward/std" in metrics else ""
        parts.append(f"reward {metrics['reward/mean']:.3f}{spread} ({terms})")
    for label, name, form in (*_ROWS["policy"], *_ROWS["speed"][:1], *_ROWS["speed"][2:]):
        if name in metrics:
            parts.append(f"{label} {metrics[name]:{form}}")
    if "completion/tokens_mean" in metrics:
        parts.append(f"length {metrics['completion/tokens_mean']:.0f}")
    spent = stage_seconds(metrics)
    if spent:
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items())
        parts.append(f"{sum(spent.values()):.1f} s ({stages})")
    if view.eta is not None:
        parts.append(f"eta {clock_time(view.eta)}")
    return " · ".join(parts)


def reward_terms(names: Iterable[str]) -> list[str]:
    """Names of the reward terms; the components of a term (``term.part``) are not among them."""
    paths = (name.split("/") for name in names)
    terms = [path[1] for path in paths if len(path) == 3 and path[0] == "reward" and path[2] == "mean"]
    return [term for term in terms if term.rpartition(".")[0] not in terms]


def stage_names(names: Iterable[str]) -> list[str]:
    """Stages among metric names; their sum ``time/step`` is none."""
    found = (name.removeprefix("time/") for name in names if name.startswith("time/"))
    return [stage for stage in found if stage != "step"]


def stage_seconds(metrics: Mapping[str, float]) -> dict[str, float]:
    """Seconds by stage."""
    return {stage: metrics[f"time/{stage}"] for stage in stage_names(metrics)}


def clock_time(seconds: float) -> str:
    """Hours, minutes and seconds: ``0:03:20``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _progress(view: View) -> Table:
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    eta = "" if view.eta is None else f" · eta {clock_time(view.eta)}"
    line.add_row(
        Text(f"step {view.step}/{view.total}", style="bold"),
        ProgressBar(total=max(view.total, 1), completed=view.step),
        Text(f"{clock_time(view.elapsed)}{eta}"),
    )
    return line


def _numbers(view: View) -> Table | None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _number_rows(view):
        table.add_row(label, Text(_printable(text)))
    return table if table.row_count else None


def _number_rows(view: View) -> Iterator[tuple[str, str]]:
    metrics = view.metrics
    if "reward/mean" in metrics:
        names = [("", "reward"), *((term, f"reward/{term}") for term in reward_terms(metrics))]
        yield "reward", "   ".join(_mean_std(label, name, metrics) for label, name in names).strip()
    for label, entries in _ROWS.items():
        shown = [f"{name} {metrics[key]:{form}}" for name, key, form in entries if key in metrics]
        if shown:
            yield label, "   ".join(shown)
    if view.last_eval:
        yield "eval", "   ".join(_held_out(name, view) for name in view.last_eval)


def _held_out(name: str, view: View) -> str:
    first, last = view.first_eval[name], view.last_eval[name]
    since = f" (first {first:.3f})" if first != last else ""
    return f"{name.removeprefix('eval/')} {last:.3f}{since}"


def _mean_std(label: str, name: str, metrics: Mapping[str, float]) -> str:
    spread = metrics.get(f"{name}/std")
    text = f"{metrics[f'{name}/mean']:.3f}" + ("" if spread is None else f" ±{spread:.3f}")
    return f"{label} {text}".strip()


class _StageBar:
    """One line, divided among the stages by their seconds."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        total, width, drawn, passed = sum(self._seconds.values()), options.max_width, 0, 0.0
        bar = Text(no_wrap=True)
        for index, spent in enumerate(self._seconds.values()):
            passed += spent
            end = round(width * passed / total)
            bar.append("█" * (end - drawn), style=_COLOURS[index % len(_COLOURS)])
            drawn = end
        yield bar


def _stages(metrics: Mapping[str, float]) -> RenderableType | None:
    seconds = stage_seconds(metrics)
    if sum(seconds.values()) <= 0:
        return None
    legend = Text()
    for index, (name, spent) in enumerate(seconds.items()):
        legend.append("■ ", style=_COLOURS[index % len(_COLOURS)])
        legend.append(f"{name} {spent:.1f} s   ")
    return Group(_StageBar(seconds), legend)


def _printable(text: str) -> str:
    """Model output may hold control characters that would steer the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)
