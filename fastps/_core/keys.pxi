# The keys of tables: hashes of text, and the shards of keys.

def hash_of(bytes text):
    """The key for these bytes: the same in every process and release."""
    return fps_hash_bytes(<const unsigned char *>text, len(text))


def shards_of(object keys, uint32_t num_shards):
    """Per key, uint64[n], the shard of its row."""
    cdef Py_ssize_t i, n = np.PyArray_SIZE(keys)
    cdef np.npy_intp length = n
    cdef object out = np.PyArray_EMPTY(1, &length, np.NPY_UINT32, 0)
    cdef const uint64_t *key = <const uint64_t *>np.PyArray_DATA(keys)
    cdef uint32_t *shard = <uint32_t *>np.PyArray_DATA(out)
    for i in range(n):
        shard[i] = fps_hash_shard(fps_hash(key[i]), num_shards)
    return out


cdef check_keys(object keys):
    if not (np.PyArray_CheckExact(keys) and np.PyArray_NDIM(keys) == 1 and np.PyArray_ITEMSIZE(keys) == 8
            and np.PyArray_ISCARRAY_RO(keys)):
        raise ValueError("keys: expected uint64[n]")


cdef check_streams(list streams, Py_ssize_t n):
    """Of a table: an entry for the values and each slot."""
    if len(streams) != n:
        raise ValueError(f"streams: {len(streams)} of {n}")
