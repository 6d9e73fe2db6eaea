"""An operator's hands: the `xenmesh` command."""
