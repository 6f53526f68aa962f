"""The ids that Gymnasium knows us by."""

from __future__ import annotations

ENV_IDS = {
    "thinkedit/Edit-v0": {},
    # One critique and one edit: the EditThinker paper's regime. Give stored states with
    # reset(options={"state": ...}) or states=[...]; without any, edit 0 is made at reset.
    "thinkedit/EditStep-v0": {"max_turns": 1},
}


def register_envs() -> None:
    """Register our environments, once. `import thinkedit` does it."""
    from gymnasium.envs.registration import register, registry

    for env_id, kwargs in ENV_IDS.items():
        if env_id not in registry:
            register(
                env_id,
                entry_point="thinkedit.envs.edit_env:ThinkEditEnv",
                vector_entry_point="thinkedit.envs.vector:ThinkEditVectorEnv",
                kwargs=dict(kwargs),
            )
