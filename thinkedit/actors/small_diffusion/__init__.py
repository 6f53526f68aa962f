"""A small diffusion editor of the world's pictures, trained on the spot; its weights come along."""
