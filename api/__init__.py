"""The doors and the engine room: REST, ingest, command line, scheduled jobs, control state, audit."""
