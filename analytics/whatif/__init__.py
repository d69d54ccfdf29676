"""What percentiles would be if something were different, computed from recorded messages, with the assumptions said."""
