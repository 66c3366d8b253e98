"""Many producers, one stream: programs that load the whole path and check what comes out of it."""
