"""All paths, for each reader: Prometheus, the log, the terminal."""
