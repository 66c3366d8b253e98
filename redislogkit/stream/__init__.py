"""The stream: one client, the Lua scripts, and the embedded server."""
