"""The agent in a virtual machine."""
