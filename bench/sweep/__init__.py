"""A sweep over shard counts, sizes and worker counts: every point beside roof and floor, from the same minutes."""
