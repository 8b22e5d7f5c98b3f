"""Readers and writers of sketch files; :func:`read_sketch` picks the reader."""
