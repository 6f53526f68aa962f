"""RLlib's PPO on thinkedit, through RLlib's own env runners: proof that the environment is ordinary.

The thinker here is a small network that picks one of seven scripted wordings instead of writing text
(`DiscreteStrategies`); it learns which wording this editor obeys. Runs on one core in about a minute:

    python examples/rllib_ppo.py --iterations 10
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

import thinkedit  # noqa: F401 - registers the environments
from thinkedit.envs.wrappers import DiscreteStrategies

BATCH = 512  # episodes per iteration


def make_env(config: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """One critique per episode over the wordings; RLlib calls it in each of its env runners."""
    return DiscreteStrategies(gymnasium.make("thinkedit/EditStep-v0", **config))


def train(iterations: int, env_runners: int, seed: int) -> list[float]:
    """Mean return of each iteration's episodes."""
    register_env("thinkedit-strategies", make_env)
    config = (
        PPOConfig()
        # The strategies' scores are no critic's: a reward that pays more for the edits than the demo's.
        .environment("thinkedit-strategies", env_config={"overrides": ["reward=balanced"]})
        .framework("torch")
        .env_runners(num_env_runners=env_runners, num_envs_per_env_runner=1)
        .learners(num_learners=0)
        # One step per episode: no value to look ahead to, so neither discount nor lambda matters.
        .training(
            lr=3e-3,
            train_batch_size_per_learner=BATCH,
            minibatch_size=128,
            num_epochs=6,
            entropy_coeff=0.003,
            gamma=1.0,
        )
        .reporting(metrics_num_episodes_for_smoothing=BATCH)  # the mean is over the iteration's episodes
        .debugging(seed=seed, log_level="ERROR")
    )
    algorithm = config.build_algo()
    returns = []
    for iteration in range(iterations):
        result = algorithm.train()
        returns.append(float(result["env_runners"]["episode_return_mean"]))
        print(f"iteration {iteration + 1:2d}: mean return {returns[-1]:.4f}", flush=True)
    algorithm.stop()
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--env-runners", type=int, default=0, help="worker processes; 0 samples in this one")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ray.init(num_cpus=max(2, arguments.env_runners + 1), include_dashboard=False, logging_level="ERROR")
    try:
        returns = train(arguments.iterations, arguments.env_runners, arguments.seed)
    finally:
        ray.shutdown()
    print(f"first {returns[0]:.4f}, last {returns[-1]:.4f}")


if __name__ == "__main__":
    main()
