"""Guests: their lives, what the toolstack and they themselves write, and a crowd of them."""
