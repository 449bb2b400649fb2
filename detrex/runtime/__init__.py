"""What every part of the package needs from the machine: devices, processes, memory, files, a progress bar.

Nothing is imported here, so that a single module of it costs no more than itself.
"""
