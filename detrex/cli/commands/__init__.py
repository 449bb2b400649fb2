"""The arguments of each command, a module for each; nothing here imports PyTorch before a command runs.

Every module has ``parse_arguments(arguments, prog)``, which returns what the command line says, and ``run``,
which does it.
"""
