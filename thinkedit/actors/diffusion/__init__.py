"""Editors that are pipelines of diffusers, in this process.

`models` is the table of what they are asked with, `weights` checks a folder before anything is read,
`pipeline` loads one and runs it, `editor` is the plug-in. Only `pipeline` imports torch and diffusers,
and only the first edit imports `pipeline`.
"""
