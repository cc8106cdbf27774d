"""What the two ends say to each other: docs/protocol.md in code."""
