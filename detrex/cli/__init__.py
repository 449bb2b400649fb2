"""The command ``detrex``: its commands, their arguments, readable errors, whole runs.

``commands/`` has a light module for each command, which reads its arguments; what the command does is in a
module beside it, which is imported only once the arguments are right. So ``--help`` does not load PyTorch.
"""
