"""One file for each command of `python -m adept COMMAND`. Each parses its arguments, calls a package and prints."""
