"""The initiator: sessions with targets of other storage processors and of other makers (RFC 7143)."""
