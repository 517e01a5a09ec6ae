"""The reward bank on a Ray cluster.

    pool = RewardPool(config, ...)     # functions resolved, workers starting
    pool.smoke(prompts)                # every term once, before any engine starts
    for group in rollout.sample(...):
        pool.submit(group)             # functions score it while other groups still sample
    scores = pool.collect()            # reward models score, terms combine; in the order of submission

Functions run in processes of their own (``reward_crew``); reward models where their scorers put them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.cluster.reward_crew import Crew
from align.config.rewards import RewardsConfig
from align.errors import RewardError
from align.reward.bank.combine import Combination
from align.reward.bank.jobs import JobBoard, Ticket
from align.reward.bank.ledger import Ledger, summary
from align.reward.bank.terms import Predicate, assignments, check_smoke, load_terms, probes
from align.reward.contract import Sample
from align.types import Group, Outcome, Prompt, SampleScore

Scorer = Callable[[Sequence[Sample]], list[Outcome]]
"""A reward model: one outcome a sample, in order. Called in the thread that collects."""


class RewardPool:
    """The reward bank as the loop sees it (``align.types.Rewards``).

    Args:
        config: the section ``rewards``.
        seed: the recipe's seed.
        compile_expression: turns the text of ``where`` into a predicate over the row's columns.
        max_new_tokens: the limit under which completions are sampled.
        run_dir: failures are written to ``reward_errors.jsonl`` in it.
        scorers: what computes the terms that name a model, by term name. Each is called once a step,
            in ``collect``, with all samples in the term's scope.
        find_model: from a model as the recipe names it to its directory, for its calibration.
        recipe: the recipe file, for messages.
        max_steps: steps of the run, for functions that ask.

    Raises:
        RewardError: a function cannot be found or imported, a model has no scorer or no calibration.
    """

    def __init__(
        self,
        config: RewardsConfig,
        *,
        seed: int,
        compile_expression: Callable[[str], Predicate],
        max_new_tokens: int,
        run_dir: Path,
        scorers: Mapping[str, Scorer] | None = None,
        find_model: Callable[[str], str] = str,
        recipe: str | Path | None = None,
        max_steps: int = 1,
    ) -> None:
        self.terms = load_terms(
            config, compile_expression, find_model=find_model, file=recipe, max_steps=max_steps
        )
        self._scorers = scorers or {}
        for term in self.terms:
            if term.function is None and term.name not in self._scorers:
                raise RewardError(
                    f"nothing computes the reward model {term.model}",
                    file=recipe,
                    key=f"rewards.terms.{term.name}.model",
                    remedy="start its scorer before the pool",
                )
        self._max_new_tokens = max_new_tokens
        self._recipe = recipe
        self._combination = Combination(self.terms, config.combine)
        self._ledger = Ledger(
            run_dir / "reward_errors.jsonl",
            budget=config.error_budget,
            window=config.error_window,
            seed=seed,
        )
        self._board = JobBoard(self.terms, self._ledger, workers=config.workers)
        self._tickets: list[Ticket] = []
        self._scored: list[SampleScore] = []
        """Since the metrics were last asked for, as are the seconds."""
        self._hidden = self._waited = 0.0
        self._crew = Crew(self._board, assignments(self.terms), workers=config.workers, seed=seed)

    def smoke(self, prompts: Sequence[Prompt]) -> None:
        """Call every term on made-up answers to ``prompts`` (give one of every mixture part).

        Raises:
            RewardError: a term raised, hung, killed its worker or returned something that is no score.
            EngineError: workers cannot be started, or a reward model's process died.
        """
        self._crew.ready()
        tickets = [
            self._post(probes([prompt], max_new_tokens=self._max_new_tokens), step=0, trial=True)
            for prompt in prompts
        ]
        self._finish(tickets)
        for ticket in tickets:
            for term in ticket.terms:
                outcomes = [found[term.name] for found in ticket.outcomes]
                check_smoke(term, ticket.samples, outcomes, file=self._recipe)
        self._crew.meter.take()  # none of it was hidden behind sampling

    def submit(self, group: Group) -> None:
        """Start scoring a finished group; returns at once.

        Raises:
            RewardError: the error budget is spent.
        """
        self._crew.raise_fault()
        samples = [
            Sample.of(group.prompt, completion, max_new_tokens=self._max_new_tokens)
            for completion in group.completions
        ]
        step = group.completions[0].weight_version if group.completions else 0
        self._tickets.append(self._post(samples, step=step))

    def collect(self) -> list[SampleScore]:
        """Have the reward models score, wait for everything submitted, and combine the terms.

        Returns:
            Scores in (prompt, sample) order of submission.

        Raises:
            RewardError: the error budget is spent.
            EngineError: workers cannot be started, or a reward model's process died.
        """
        begin = time.monotonic()
        self._hidden += self._crew.meter.take()
        tickets, self._tickets = self._tickets, []
        self._finish(tickets)
        rewards = self._combination.rewards([ticket.outcomes for ticket in tickets])
        scores = [
            SampleScore(
                prompt_id=sample.prompt_id,
                sample_index=sample.sample_index,
                reward=reward,
                terms={term.name: outcomes[term.name] for term in ticket.terms},
            )
            for ticket, group in zip(tickets, rewards, strict=True)
            for sample, outcomes, reward in zip(ticket.samples, ticket.outcomes, group, strict=True)
        ]
        self._scored += scores
        self._crew.meter.take()  # this part of the scoring is not hidden
        self._waited += time.monotonic() - begin if tickets else 0.0
        return scores

    def metrics(self) -> dict[str, float]:
        """Figures of everything collected since they were last asked for: of a step, which ends here.

        Those of ``align.reward.bank.ledger.summary`` and of the combination; the seconds in which something
        was being scored (``reward/wall_seconds``), those of them that ``collect`` took
        (``reward/wait_seconds``), and the share that was hidden behind sampling.
        """
        metrics = summary(self.terms, self._scored) | self._combination.end_step()
        if wall := self._hidden + self._waited:
            metrics["reward/wall_seconds"] = wall
            metrics["reward/wait_seconds"] = self._waited
            metrics["reward/hidden_share"] = self._hidden / wall
        self._scored, self._hidden, self._waited = [], 0.0, 0.0
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint, as JSON values: running calibrations, multipliers, error window."""
        return {"combination": self._combination.state_dict(), "ledger": self._ledger.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken.

        Raises:
            CheckpointError: it is of a run with other terms.
        """
        self._combination.load_state_dict(state["combination"])
        self._ledger.load_state_dict(state["ledger"])

    def close(self) -> None:
        """End the workers. What was submitted and not collected is lost."""
        self._crew.close()

    def _post(self, samples: list[Sample], *, step: int, trial: bool = False) -> Ticket:
        ticket = self._board.ticket(samples, step=step, trial=trial)
        self._crew.post(ticket)
        return ticket

    def _finish(self, tickets: Sequence[Ticket]) -> None:
        """Complete the outcomes: the models score while the last functions run."""
        modelled = self._ask_models(tickets)
        self._crew.wait_for(tickets)
        for ticket, outcomes in zip(tickets, modelled, strict=True):
            self._board.modelled(ticket, outcomes)

    def _ask_models(self, tickets: Sequence[Ticket]) -> list[list[dict[str, Outcome]]]:
        """Per ticket and sample, what each model in scope says: one call a model."""
        found: list[list[dict[str, Outcome]]] = [[{} for _ in ticket.samples] for ticket in tickets]
        for name, scorer in self._scorers.items():
            inside = [
                (ticket, rows)
                for ticket, rows in zip(tickets, found, strict=True)
                if any(term.name == name for term in ticket.modelled)
            ]
            samples = [sample for ticket, _ in inside for sample in ticket.samples]
            if samples:
                rows = [row for _, group in inside for row in group]
                for row, outcome in zip(rows, scorer(samples), strict=True):
                    row[name] = outcome
        return found
