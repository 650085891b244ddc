"""Movie recommendations: a factorisation of MovieLens in two sparse tables, trained by Ray tasks.

An application on top of the library: it uses only what `import fastps` makes public.
"""
