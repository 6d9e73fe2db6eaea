"""What may be said on the xenmesh bus: envelopes, events, requests, subjects, errors."""
