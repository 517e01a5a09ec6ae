"""Trainer → engine: publish, load, verify."""

from __future__ import annotations

from typing import Any

from align.cluster.policy_actor import TRAINER
from align.cluster.remote import wait
from align.cluster.rollout_actor import ENGINE
from align.config.recipe import GrpoRecipe
from align.sync.verify import compare_probe
from align.types import SyncReport


class WeightSync:
    """Pushes the policy into the running engine (``align.types.Sync``).

    Usage: ``push()`` after every update, and once before the first rollout.
    Invariant: after ``push`` the engine's weights are the policy's, checksums and probe say so,
    and completions sampled from then on carry the returned version.
    """

    def __init__(self, policy: Any, rollout: Any, recipe: GrpoRecipe, probe: list[int]) -> None:
        """Args:
        policy: the PolicyActor.
        rollout: the RolloutActor.
        recipe: tolerance and types.
        probe: token ids that both sides score.
        """
        self.policy, self.rollout = policy, rollout
        self.config = recipe.sync
        types = {recipe.policy.dtype, recipe.rollout.dtype or recipe.policy.dtype}
        self.dtype = "bfloat16" if "bfloat16" in types else "float32"
        self.probe = probe
        self.version = 0

    def push(self) -> SyncReport:
        manifest = wait(self.policy.publish.remote(self.version), TRAINER)
        wait(self.rollout.load.remote(manifest), ENGINE)
        mean = largest = float("nan")
        if self.version % self.config.every == 0:
            # One after the other: two computing processes at once slow each other many times over.
            trainer = wait(self.policy.probe.remote(self.probe), TRAINER)
            engine = wait(self.rollout.score.remote(self.probe), ENGINE)
            mean, largest = compare_probe(trainer, engine, self.config, self.dtype)
        report = SyncReport(manifest.version, len(manifest.specs), manifest.nbytes, mean, largest)
        self.version += 1
        return report

    @property
    def held(self) -> int:
        """Version of the weights in the engine."""
        return self.version - 1
