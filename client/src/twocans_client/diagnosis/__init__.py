"""The active battery of `diagnose`: one target is tried in every way at once, for a while."""
