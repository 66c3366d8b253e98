"""Looking at records: in the stream, in log files, in spools. Read-only: no group, no lock, no file changes."""
