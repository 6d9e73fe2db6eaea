"""Who speaks in Dom0: the xenmesh services and their daemon."""
