"""Numbers and pictures about trained networks and their training runs."""
