"""What tries to break the package: killed writers, damaged files, hostile input. Run by hand; short forms are among the tests."""
