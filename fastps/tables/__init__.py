"""Sparse tables: rows of numbers by key, born when they are first asked for."""
