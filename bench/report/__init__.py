"""The report on a sweep: one page that opens without a network."""
