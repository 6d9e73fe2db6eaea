"""A host without Xen: a xenstored and guests that live on it."""
