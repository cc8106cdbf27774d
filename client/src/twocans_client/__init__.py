"""The client can: connects, asks, checks, closes, for ever, and says what it found."""
