"""A trained run put to use: on files, folders, bytes and arrays, long or short."""
