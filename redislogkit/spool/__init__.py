"""The spool: crash-safe buffer between a producer and the shipper. Never imports redis."""
