"""What a trial is worth: accuracy, latency, memory, size, and the targets on which they are measured.

Nothing is imported here: measuring processes import this package and must hold no more than the runtime.
"""
