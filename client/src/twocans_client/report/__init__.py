"""What a few probes amount to, for people and for programs."""
