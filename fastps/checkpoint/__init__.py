"""Checkpoints: the state of a server in a directory of files that others can read."""
