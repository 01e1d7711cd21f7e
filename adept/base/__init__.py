"""What every other package may use: errors, options, YAML files, atomic writes, processes, the console.

It imports nothing else of adept.
"""
