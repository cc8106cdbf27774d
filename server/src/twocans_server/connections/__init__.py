"""One connection, as a state machine that never waits."""
