"""The command ``detrex``: its commands, their arguments, readable errors, whole runs.

``commands/`` has a light module for each command, which reads its arguments; the work is done in modules
beside that folder, which are imported only when the arguments are right. So ``--help`` does not load PyTorch.
"""
