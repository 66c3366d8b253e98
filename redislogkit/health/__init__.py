"""How a set-up is: what runs, what waits, what is wrong, and what to do about it. Only looks, changes nothing."""
