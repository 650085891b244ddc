"""The comparison of consistency settings: the same training under each of them, with one slow worker.

`run` is the program, `race` one training run under one setting, `worker` what a worker does in it.
"""
