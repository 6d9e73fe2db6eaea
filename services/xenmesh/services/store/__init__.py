"""The store service: the one watcher of xenstore, and the one stream of what changed there."""
