"""What the tests share: waiting, processes, scripts, servers."""
