"""A process's side of a server: one session for all its handles and threads."""
