"""Creating servers, and their handles."""
