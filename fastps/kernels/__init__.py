"""The rule compiler: from a rule to machine code (`compiler`), kept on disk (`cache`), loaded without numba (`loader`)."""
