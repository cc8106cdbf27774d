"""Programs that a scene runs beside the pair, or in its stead; each says what is odd about it."""
