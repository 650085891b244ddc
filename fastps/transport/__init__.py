"""How an operation reaches a shard: `shm` on the caller's node, `ray` from other nodes, behind one `contract`."""
