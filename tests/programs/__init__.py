"""Programs as users write them; every one logs numbered records and counts them in a `Tally`."""
