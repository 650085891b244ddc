"""One question a file: what fastps costs beside its bars."""
