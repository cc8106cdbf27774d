"""Sockets, and waiting for them."""
