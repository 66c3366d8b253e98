"""Writers: from the stream into files and terminals."""
