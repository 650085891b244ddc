"""The demo: one training run on fastps and on a plain Ray actor, and a table that compares them.

`run` is the program, `measure` one training run on one server, `worker` the training loop, `client` a worker's side of
either server, `network` what is trained and `digits` on what. `consistency` is the other mode of the demo, which
compares the settings of consistency with each other.
"""
