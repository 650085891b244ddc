"""Results beside each other: is one slower, and how have they changed over time."""
