"""The client: it connects, asks, checks and closes, continuously, and reports what it found."""
