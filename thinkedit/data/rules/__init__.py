"""The rules by which trajectories become training data, one per module, as pure functions.

`graded`, `keep`, `truncate`, `unroll` and `sanity` look at one trajectory; `duplicates`, `balance` and
`split` at streams of summaries in an order that each names; `overlap` at pictures.
"""
