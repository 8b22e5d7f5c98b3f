"""NumPy twins of the native operations: slow, readable, and what the tests hold the native core against."""
