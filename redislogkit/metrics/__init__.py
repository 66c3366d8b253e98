"""Figures for Prometheus, from what the supervisor and the stream tell. Needs ``redislogkit[metrics]``."""
