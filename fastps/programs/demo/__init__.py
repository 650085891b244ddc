"""The demo: one training run on fastps and on a plain Ray actor, and a table that compares them.

An application on top of the library: it uses only what `import fastps` makes public.
"""
