"""``python -m redislogkit verify``: what stands in log files against what was written into them."""
