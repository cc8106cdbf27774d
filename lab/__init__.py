"""Faults made on purpose, on one Linux machine: what the pair says of them can be checked."""
