"""Where to probe: targets as written, looked up, watched and chosen."""
