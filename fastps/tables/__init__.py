"""Sparse tables: rows of numbers by key, created when they are first used."""
