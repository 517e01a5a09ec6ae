"""What a run of either TRL stage has around its trainer: directory, reporter, checkpoints, Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from align.checkpoint.store import Checkpoint, CheckpointStore
from align.config.recipe import TrlRecipe
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory, recipe_hash
from align.train.interrupt import StopRequest
from align.train.trl.launch import first_process, share_threads
from align.train.trl.stored_trainer import StoredTrainer


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """An opened run, as one of its processes sees it."""

    steps: int
    """Of the whole run."""
    store: CheckpointStore
    checkpoint: Checkpoint | None
    """Where it goes on."""
    reporter: Reporter | None
    """None on all processes but the first."""
    stop: StopRequest

    @property
    def finished(self) -> bool:
        """Whether the checkpoint is that of the last step."""
        return self.checkpoint is not None and self.checkpoint.step == self.steps

    def train(self, trainer: StoredTrainer) -> None:
        """Train to the last step.

        Raises:
            CheckpointError: the checkpoint is damaged.
            KeyboardInterrupt: stopped by the user, after a checkpoint.
        """
        if self.checkpoint is None:
            trainer.train()
        else:
            if trainer.is_world_process_zero():
                self.checkpoint.verify()
            trainer.train(resume_from_checkpoint=str(self.checkpoint.path))
        step = trainer.state.global_step
        if self.stop.requested and step < self.steps:
            if self.reporter:
                self.reporter.message(f"stopped after step {step}; continue with --resume")
            raise KeyboardInterrupt


@contextmanager
def training_run(recipe: TrlRecipe, steps: int, *, resume: bool) -> Iterator[TrainingRun]:
    """Open a run of ``steps`` steps in each of its processes; close what it opened.

    Raises:
        AlignError: the directory cannot be used.
    """
    share_threads(recipe.cluster)
    resolved = recipe.model_dump(mode="json")
    store = CheckpointStore(recipe.directory / "checkpoints", recipe.checkpoint.keep, recipe_hash(resolved))
    if not first_process():
        with StopRequest() as stop:
            yield TrainingRun(steps, store, store.latest() if resume else None, None, stop)
        return
    with RunDirectory.create(recipe.directory, resolved, resume=resume) as run:
        checkpoint = store.latest() if resume else None
        start = checkpoint.step if checkpoint else 0
        with Reporter(run, recipe.report, steps, start) as reporter, StopRequest() as stop:
            yield TrainingRun(steps, store, checkpoint, reporter, stop)


def whole_model(trainer: StoredTrainer, load: Callable[[], Any]) -> Any:
    """The trained model, whole, on the first process; None on the others. Called on all.

    Args:
        trainer: after training.
        load: makes the model anew, unsharded, to take in the gathered weights of FSDP.
    """
    if not trainer.is_fsdp_enabled:
        return trainer.model if trainer.is_world_process_zero() else None
    state = trainer.accelerator.get_state_dict(trainer.model)  # collective; whole on the first rank
    if not trainer.is_world_process_zero():
        return None
    model = load()
    model.load_state_dict(state)
    return model
