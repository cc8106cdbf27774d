"""What both ends measured, and what follows from it."""
