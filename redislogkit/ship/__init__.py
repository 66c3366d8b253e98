"""The shipper: from the spools of all producers of the host into the stream."""
