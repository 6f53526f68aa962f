"""Editors as servers, for trainers on this machine or another one.

`replica` holds one copy of the editor in a Ray Serve deployment, `calls` reaches the replicas from any
process of the cluster, `routing` picks one, and `handle` is an editor plug-in made of them. `front` is
the HTTP face, `guard` what every request passes before it, `service` joins equal edits and counts them.
`server` runs it all.
`judge` starts vLLM's server for a judge's model, behind the same guard.
"""
