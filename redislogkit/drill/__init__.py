"""``python -m redislogkit drill``: faults on purpose on a user's own set-up, and the count of what became of the records."""
