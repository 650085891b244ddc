"""The client side of a server: one session per process, for all its handles and threads."""
