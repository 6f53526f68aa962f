"""The named reward profiles: which terms count how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isclose

from thinkedit.errors import ConfigError, UnknownName

# Computed and logged under every profile, at weight 0 where the profile has no use for it,
# so that runs under different profiles can be compared term by term.
ALWAYS_LOGGED = ("format", "critic", "semantic", "quality", "critic_distance", "overall", "keep_penalty")


def balanced() -> dict[str, float]:
    """0.5 F + 0.1 A + 0.3 e_sem + 0.1 e_qual: the formula EditThinker's code has commented out."""
    return {"format": 0.5, "critic": 0.1, "semantic": 0.3, "quality": 0.1}


def calibrated() -> dict[str, float]:
    """`balanced` with ten times as much for the critic beside its semantic and quality terms.

    Where most first edits fail, 0.1 is too little: the thinker drifts towards expecting failure of every
    edit, and accepts none.
    """
    return {"format": 0.125, "critic": 0.625, "semantic": 0.1875, "quality": 0.0625}


def released() -> dict[str, float]:
    """0.5 F + 0.5 e_sem: the live line of EditThinker's released code."""
    return {"format": 0.5, "semantic": 0.5}


def paper(alpha: float = 0.5, beta: float = 0.1, gamma: float = 0.4) -> dict[str, float]:
    """alpha F + beta R_c + gamma R_e (EditThinker paper, Eq. 5); the default values are ours.

    Raises:
        ConfigError: a weight is negative or they do not sum to 1, as the paper asks.
    """
    weights = {"format": alpha, "critic_distance": beta, "overall": gamma}
    _check_paper(weights)
    return weights


_PROFILES: Mapping[str, Callable[[], dict[str, float]]] = {
    "balanced": balanced,
    "calibrated": calibrated,
    "released": released,
    "paper": paper,
}
PROFILES = tuple(_PROFILES)


def weights_of(profile: str, own: Mapping[str, float] | None = None) -> dict[str, float]:
    """Weight of each term, the always-logged ones included.

    Args:
        profile: one of `PROFILES`.
        own: weights that replace the profile's. Under "paper" alpha, beta and gamma are those
            of `format`, `critic_distance` and `overall`, and must still sum to 1.

    Raises:
        UnknownName: no such profile.
        ConfigError: weights that the profile does not allow.
    """
    if profile not in _PROFILES:
        raise UnknownName("reward.profile", profile, _PROFILES)
    weights = dict(own) if own else _PROFILES[profile]()
    if profile == "paper":
        _check_paper(weights)
    return {**dict.fromkeys(ALWAYS_LOGGED, 0.0), **weights}


def _check_paper(weights: Mapping[str, float]) -> None:
    needed = ("format", "critic_distance", "overall")
    for name in needed:
        if name not in weights:
            raise ConfigError(f"reward.weights: profile 'paper' needs {', '.join(needed)}; {name} is missing")
        if not weights[name] >= 0:
            raise ConfigError(f"reward.weights.{name}={weights[name]}: must not be negative")
    total = sum(weights[name] for name in needed)
    if not isclose(total, 1.0, rel_tol=0, abs_tol=1e-9):
        raise ConfigError(
            f"reward.weights: alpha + beta + gamma ({' + '.join(needed)}) must sum to 1, got {total:g}"
        )
