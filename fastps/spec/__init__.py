"""Values that travel in a handle. Pure."""
