"""Files of training data: ours, LLaMA-Factory's, the reference's and verl's, each checked on load."""
