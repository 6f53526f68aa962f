"""thinkedit: train a multimodal thinker to steer any image editor."""

from thinkedit.envs.registration import register_envs

register_envs()
del register_envs
