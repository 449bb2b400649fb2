"""A module with the arguments of each command; nothing here imports PyTorch before a command runs.

Every module has ``parse_arguments(arguments, prog)``, which reads the command line, and ``run``, which runs
the command.
"""
