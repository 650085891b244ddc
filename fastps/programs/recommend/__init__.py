"""Movie recommendations: a factorisation of MovieLens in two sparse tables, trained by Ray tasks.

`run` is the program, `movielens` and `ratings` are the data, `model` is what is trained, `train` and `worker` train it,
`evaluate` and `picks` use the result.
"""
