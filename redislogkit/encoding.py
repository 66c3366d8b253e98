"""How runs of records become stream entries under a configuration: layout, compression, text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redislogkit import formatting
from redislogkit.config import Config, FileWriterConfig, FormatterConfig
from redislogkit.stream import batch, records


def encoder(config: Config) -> Callable[[Sequence[batch.RawRun]], list[batch.Entry]]:
    """Return the encoder for ``stream.layout``. Raises ``ConfigError`` for a codec that is not installed."""
    if config.stream.layout == "records":
        return records.encoder(formatting.build(text_formatter(config)))
    codec, compress = batch.compressor(config.stream.compression)
    return lambda runs: [batch.encode(runs, codec, compress)]


def text_formatter(config: Config) -> FormatterConfig:
    """Formatter of ``formatted_message``: that of the first file writer, else of the first writer."""
    writers = sorted(config.writers.values(), key=lambda writer: not isinstance(writer, FileWriterConfig))
    texts = [writer.formatter for writer in writers if writer.formatter.type == "text"]
    return texts[0] if texts else FormatterConfig()
