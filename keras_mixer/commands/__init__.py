"""What the command line does. Internal: scripts use the other rooms."""
