"""How it travels: the abstract bus, in memory and over NATS; the service and the consumer side."""
