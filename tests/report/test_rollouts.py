import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.report.rollouts import RolloutSink, rollout_files, rollout_table


def test_a_row_holds_the_whole_sample(make_step):
    rows = rollout_table(make_step(step=4)).to_pylist()
    assert len(rows) == 4
    assert rows[1] == {
        "step": 4,
        "prompt_id": "train/a",
        "part": "train",
        "sample_index": 1,
        "prompt": "system: Be brief.\n\nuser: Ask a",
        "prompt_messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Ask a"},
        ],
        "completion": "answer",
        "finish_reason": "length",
        "prompt_tokens": 5,
        "tokens": 4,
        "weight_version": 3,
        "versions": [{"version": 3, "tokens": 4}],
        "seed": 101,
        "logprob_mean": pytest.approx(-0.75),  # (3 × −0.5 − 1.5) / 4
        "reward": 0.0,
        "advantage": -1.0,
        "reward/exact": 0.0,
        "outcome/exact": "ok",
        "reward/form": 0.0,
        "outcome/form": "ok",
    }


def test_a_failure_is_null_with_its_kind(make_step):
    rows = rollout_table(make_step()).to_pylist()
    assert (rows[3]["reward"], rows[3]["advantage"]) == (None, None)
    assert (rows[3]["reward/exact"], rows[3]["outcome/exact"]) == (None, "timeout")
    assert (rows[2]["reward/form"], rows[2]["outcome/form"]) == (None, "abstain")


def test_scores_are_matched_by_sample_and_not_by_position(make_step):
    stats = make_step()
    straight = rollout_table(stats).to_pylist()
    stats.scores = stats.scores[::-1]
    for row, expected in zip(rollout_table(stats).to_pylist(), straight, strict=True):
        assert row == expected


def test_seeds_of_63_bits_and_nulls_keep_their_types(make_step):
    stats = make_step()
    one = stats.groups[0].completions[0]
    stats.groups[0].completions[0] = type(one)(one.prompt_id, 0, [], [], "", "stop", 0, 2**63 - 1)
    table = rollout_table(stats)
    assert table.column("seed")[0].as_py() == 2**63 - 1
    assert table.column("logprob_mean")[0].as_py() is None
    assert table.schema.field("reward/exact").type == pa.float64()
    assert table.schema.field("outcome/exact").type == pa.string()


def test_files_come_every_so_often_and_at_both_ends(tmp_path, make_step):
    sink = RolloutSink(tmp_path / "rollouts", every=3, total_steps=8, start_step=0)
    for step in range(1, 9):
        sink.write(make_step(step=step))
    assert [step for step, _ in rollout_files(tmp_path / "rollouts")] == [1, 4, 7, 8]
    table = pq.read_table(tmp_path / "rollouts" / "step-000004.parquet")
    assert set(table.column("step").to_pylist()) == {4}


def test_resuming_removes_what_is_redone(tmp_path, make_step):
    sink = RolloutSink(tmp_path, every=1, total_steps=5, start_step=0)
    for step in (1, 2, 3):
        sink.write(make_step(step=step))
    RolloutSink(tmp_path, every=2, total_steps=5, start_step=1)
    assert [step for step, _ in rollout_files(tmp_path)] == [1]


def test_a_supervised_step_writes_nothing(tmp_path, make_step):
    stats = make_step()
    stats.groups, stats.scores, stats.advantages = [], [], []
    RolloutSink(tmp_path / "rollouts", every=1, total_steps=5, start_step=0).write(stats)
    assert not (tmp_path / "rollouts").exists()
