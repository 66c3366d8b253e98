"""The supervisor: keeps server, shipper and writers alive."""
