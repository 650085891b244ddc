"""The rule compiler: a rule becomes machine code (`compiler`), kept on disk (`cache`), loaded anywhere (`loader`)."""
