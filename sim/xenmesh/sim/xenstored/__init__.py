"""A complete xenstored: a pure engine that speaks as either real server does, and a daemon on a unix socket around it."""
