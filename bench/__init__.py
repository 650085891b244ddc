"""Benchmarks: how far from the best of what one would use instead, and from the same work without sharing?"""
