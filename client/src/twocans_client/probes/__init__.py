"""One connection: when it is made, what is said on it, how it ended."""
