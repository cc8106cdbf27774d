"""What the kernel says, from bytes to values."""
