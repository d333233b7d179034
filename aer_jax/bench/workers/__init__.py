"""The processes that the benchmarks start and time.

They are run as modules and imported by nobody.
"""
