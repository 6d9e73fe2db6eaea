"""What a daemon in Dom0 is: ``xenmeshd``, its configuration, its log, and how it answers to systemd."""
