"""What the command-line tools share: arguments, readable errors, whole runs, jobs of a batch system."""
