"""Who races: each way of getting the records of several processes into files. `entry` has the list of them."""
