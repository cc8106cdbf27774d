"""From evidence to verdicts: what is wrong, whose doing it is, and the proof. No I/O."""
