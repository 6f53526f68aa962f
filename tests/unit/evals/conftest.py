from pathlib import Path

import pytest
from episodes import make_run

from thinkedit.evals.run import RunFolder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of real episodes; tests that change it take a copy."""
    return make_run(Path(tmp_path_factory.mktemp("runs")) / "demo")
