"""The door for programs that speak OpenTelemetry, and for JSON lines: a collector of the agent (docs/otlp.md)."""
