"""The server can: accepts, echoes, stamps and counts."""
