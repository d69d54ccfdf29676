"""Grafana dashboards as code: built here, written to `deploy/grafana/`, and the same files are what is pushed."""
