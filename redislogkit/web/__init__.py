"""The page in the browser: live tail, history, figures. Needs ``redislogkit[web]``."""
