"""What Xen is: a xenstore client for anyio."""
