"""Plans: a training step compiled and costed for devices that are absent.

Nothing here runs a step, and nothing but the command line and studies import it.
"""
