"""Compares results: is one slower than another, and how have they changed over time."""
