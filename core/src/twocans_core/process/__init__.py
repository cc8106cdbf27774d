"""What surrounds a service: settings, logs, HTTP, signals, health."""
