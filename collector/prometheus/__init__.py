"""The collector `prometheus`: scrapes what programs and exporters offer on /metrics (docs/prometheus.md)."""
