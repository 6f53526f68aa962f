"""thinkedit: train a multimodal thinker to steer any image editor."""
