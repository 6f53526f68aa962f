"""RLlib trains on the environment with nothing of ours but the environment."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "rllib_ppo.py"


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_rllibs_ppo_learns_which_wording_the_editor_obeys() -> None:
    answer = subprocess.run(
        [sys.executable, str(EXAMPLE), "--iterations", "8", "--env-runners", "1"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    returns = [float(value) for value in re.findall(r"mean return ([\d.]+)", answer.stdout)]
    assert len(returns) == 8
    assert all(0 < value < 1 for value in returns)
    # 512 episodes give a mean within 0.005; choosing well is worth about 0.05.
    assert sum(returns[-2:]) / 2 > returns[0] + 0.02
