"""How an operation reaches a shard: `shm` when it is on the caller's node, `ray` otherwise, behind one `contract`."""
