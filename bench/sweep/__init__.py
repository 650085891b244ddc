"""A sweep over shard counts, sizes and worker counts: every point beside its peers, from the same minutes."""
