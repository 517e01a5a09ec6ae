#!/bin/bash
# A Ray cluster inside a Slurm allocation, and one GRPO run on it:
#   sbatch docs/cluster/slurm.sh recipes/v2_lite_grpo_preference.yaml cluster.processes=8
# One Ray node a machine. The checkout and the run directory must be on a file system that all machines see.
#SBATCH --job-name=align
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
set -euo pipefail

port=6379
cpus=${SLURM_CPUS_PER_TASK:-64}
gpus=${SLURM_GPUS_ON_NODE:-8}
mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${machines[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

# A head asks for a token by itself, a machine that joins does not: one for all.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap --cpus-per-task="$cpus" \
    ray start --head --node-ip-address="$address" --port="$port" \
    --num-cpus="$cpus" --num-gpus="$gpus" --include-dashboard=false --block &
sleep 20
for machine in "${machines[@]:1}"; do
    srun --nodes=1 --ntasks=1 --nodelist="$machine" --overlap --cpus-per-task="$cpus" \
        ray start --address="$address:$port" --num-cpus="$cpus" --num-gpus="$gpus" --block &
done

# The run waits a minute for its place; machines that come later bring engines.
sleep 20
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap --cpus-per-task="$cpus" \
    align grpo "$@" --ray-address "$address:$port"
