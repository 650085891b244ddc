"""Benchmarks: how close to the machine's limit, how far ahead of what one would otherwise write?"""
