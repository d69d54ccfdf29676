"""The SQL door: ClickHouse's HTTP interface, read-only, in front of the embedded store."""
