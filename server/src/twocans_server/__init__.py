"""The server can: accepts, echoes, timestamps and counts."""
