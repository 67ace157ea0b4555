"""The commands of the command line. Internal: not for use in scripts."""
