"""What every other package may use: errors, options, YAML files, atomic writes, processes, the console. Imports nothing
of adept.
"""
