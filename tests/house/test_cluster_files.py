"""The files for clusters in docs/cluster: none runs here, but each is what it says it is."""

import subprocess
from pathlib import Path

import yaml
from typer.main import get_command

from align.cli.main import app


def test_the_slurm_script_is_bash(repo_root: Path) -> None:
    done = subprocess.run(
        ["bash", "-n", repo_root / "docs/cluster/slurm.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_ray_job_runs_what_exists(repo_root: Path) -> None:
    job = yaml.safe_load((repo_root / "docs/cluster/kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    program, command, recipe, *options = job["spec"]["entrypoint"].split()
    assert program == "align"
    known = get_command(app).commands[command]  # type: ignore[attr-defined]
    assert (repo_root / recipe.removeprefix("/shared/")).is_file()
    flags = {flag for parameter in known.params for flag in parameter.opts}
    assert {each for each in options if each.startswith("--")} <= flags
    locked = (repo_root / ".ci/lock/cpu.txt").read_text()
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in locked
