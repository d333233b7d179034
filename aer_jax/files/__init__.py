"""Files on disk: written whole, hashed, locked and parsed strictly.

Nothing here knows what the files are about.
"""
