"""Settings shared by all tests."""

import os

# Two cores: threads that spin while they wait cost up to ten times. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import settings

# Other work may share the machine, so time is no criterion; print what is needed to repeat.
settings.register_profile("thinkedit", deadline=None, print_blob=True)
settings.load_profile("thinkedit")
