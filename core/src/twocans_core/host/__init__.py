"""What this host and this process went through."""
