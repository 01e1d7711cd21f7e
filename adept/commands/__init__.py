"""The commands of `python -m adept COMMAND`, one file each: parse the command line, call the package, print."""
