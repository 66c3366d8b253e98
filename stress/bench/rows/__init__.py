"""The rows of the table beside the comparison. Each module measures one thing, in a process of its own."""
