"""verl on machines without a GPU, through verl's own extension points only.

`platform` is the device plug-in, `engine` the FSDP2 engine for device "cpu", `rollout` the vLLM
worker extension that takes new weights, `environment` the process environment that selects them.
A GPU run imports none of this.
"""
