"""Grafana's dashboards: what is on them, and the JSON that is made of it."""
