"""The contract kit: what every editor, judge and reward term promises, as tests.

A plug-in's test class inherits one of these and says how its object is made; pytest runs the rest.
`thinkedit` itself never imports this package, so pytest is needed by whoever tests, and by nobody else.
"""

import pytest

# Before they are imported (hence E402), or a failed assertion would not show its values.
pytest.register_assert_rewrite(
    "thinkedit.testing.editor", "thinkedit.testing.judge", "thinkedit.testing.reward_term"
)

from thinkedit.testing.editor import EditorContract  # noqa: E402
from thinkedit.testing.judge import JudgeContract  # noqa: E402
from thinkedit.testing.reward_term import RewardTermContract  # noqa: E402

__all__ = ["EditorContract", "JudgeContract", "RewardTermContract"]
