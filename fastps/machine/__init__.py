"""The machine at hand: its facts, what of them is poor, the memory and packages that it has."""
