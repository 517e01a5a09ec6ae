"""The last finished step of a GRPO run, so that a run that fails leaves a checkpoint of it."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any

from align.checkpoint.store import CheckpointStore
from align.train.grpo.build import Job

_log = logging.getLogger(__name__)


class LastStep:
    """Saves the steps of a run, and the last finished one when an error leaves the block.

    Usage::

        with LastStep(job, store, start) as last:
            for step in grpo(…):
                last.finished(step)
                if due: last.save()

    A step ends with its verified push. When update or push fail, the policy is past the last step that
    was verified, and nothing is saved over the checkpoints there are.
    """

    def __init__(self, job: Job, store: CheckpointStore, start: int) -> None:
        """
        Args:
            job: the started run, at ``start``.
            store: where checkpoints go.
            start: steps done; their checkpoint, if there are any, exists.
        """
        self._job, self._store = job, store
        self._step = self._saved = start
        self._state = job.state(start)

    def finished(self, step: int) -> None:
        """Note the state at the end of a step: a later one moves cursor and rewards on."""
        self._step, self._state = step, self._job.state(step)

    def save(self) -> None:
        """Save the last finished step.

        Raises:
            SyncError: its weights were not verified yet, and trainer and engine disagree on them.
            NonFiniteError: they are no finite numbers.
        """
        self._job.sync.verify()
        self._store.save(self._step, self._job.policy.save, self._state)
        self._saved = self._step

    def __enter__(self) -> LastStep:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):
            return
        try:
            self._rescue()
        except Exception:  # the policy's process may be what died; the run's own error goes first
            _log.exception("no checkpoint could be saved after the failure")

    def _rescue(self) -> None:
        stages = self._job.parts.stages.take()
        version: Any = self._state["version"]
        if self._job.sync.held != version:  # pushed and verified; what failed came after
            self._step += 1
            self._state = self._job.state(self._step)
        elif "update" in stages or "sync" in stages:
            kept = f"step {self._saved}" if self._saved else "the start"
            self._job.reporter.message(f"step {self._step + 1} is not saved; --resume goes on from {kept}")
            return
        if self._step > self._saved:
            self.save()
            self._job.reporter.message(f"saved step {self._step}; continue with --resume")
