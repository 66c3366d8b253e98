"""The benchmark: this package beside what else is there, and each figure that it has to reach."""

import sys

# The client library loads OpenTelemetry where it is installed, and each logging call would look for a span then. What is
# measured is a program without it.
sys.modules.setdefault("opentelemetry", None)  # type: ignore[arg-type]
