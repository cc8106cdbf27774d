"""The running client: it drives the other rooms, and stops in order."""
