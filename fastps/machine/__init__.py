"""This machine: `facts` about it, the `doctor` that judges them, its memory (`capacity`) and its `packages`."""
