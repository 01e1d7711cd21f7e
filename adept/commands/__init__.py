"""One file a command of `python -m adept COMMAND`: each parses, calls and prints."""
