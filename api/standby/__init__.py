"""Two servers, one of which judges and tells: the other follows its episodes and takes over when it falls silent."""
