"""The xenstore protocol, both sides, without IO."""
