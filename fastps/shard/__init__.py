"""A shard's process."""
