"""``ConditionalFormatter``: a formatter with fields that appear only where a record has them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from redislogkit.record import safe_str


class ConditionalFormatter(logging.Formatter):
    """Appends `` - field: value`` for each of ``optional_fields`` that a record has.

    Args:
        fmt: Format of the fixed part, in ``%`` style.
        datefmt: Format of ``asctime``, as for `time.strftime`.
        optional_fields: Names of attributes, usually extras, in the order in which they appear.

    >>> formatter = ConditionalFormatter("%(message)s", optional_fields=["request_id"])
    >>> formatter.format(logging.makeLogRecord({"msg": "paid", "request_id": 7}))
    'paid - request_id: 7'
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        optional_fields: Iterable[str] | None = None,
    ) -> None:
        super().__init__(fmt, datefmt)
        self.optional_fields = tuple(optional_fields or ())

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Format the fixed part and append the fields that are there."""
        text = super().formatMessage(record)
        present = [field for field in self.optional_fields if field in record.__dict__]
        return text + "".join(f" - {field}: {safe_str(record.__dict__[field])}" for field in present)
