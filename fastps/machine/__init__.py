"""This machine: `facts` about it, what of them the `doctor` finds poor, its memory (`capacity`) and its `packages`."""
