"""The events service: what was kept of the events, for consumers without rights to JetStream."""
