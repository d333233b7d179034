"""Worker processes of the benchmarks.

They are run as modules and imported by nobody.
"""
