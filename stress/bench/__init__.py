"""The benchmark: this package beside what else is there, and each figure that it has to reach."""
