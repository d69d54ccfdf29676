"""Takes timestamps and ships them: records, clocks, sources, spool, sinks; the store client and the schema."""
