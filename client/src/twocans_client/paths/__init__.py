"""What is known of each path, and of all of them together."""
