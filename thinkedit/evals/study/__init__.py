"""`thinkedit study`: the paper's ablations, run anew in the built-in world, on one page.

`plan` says what is trained and played, `play` plays one cell of it, `figures` counts over seeds,
`page` writes it down.
"""
