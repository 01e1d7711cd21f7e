"""The script of every child: python sandbox.pyc ROLE [ARGUMENT ...], where ROLE is "candidate", "judge" or "probe".

`processes.child_script` compiles this file and puts the compiled modules of the children into it. So a child imports
nothing of adept from disk. It needs no entry in sys.path, whose folders Landlock lets the program read, and it starts
in half the time, because it neither compiles its modules nor imports what only the caller needs.
"""

import sys
import types

BUNDLED_MODULES = "BUNDLED_MODULES"  # in place of this constant the caller puts ((module name, compiled code), ...)


def import_bundled(name: str) -> types.ModuleType:
    """Imports adept.metrics.sandbox.`name` from BUNDLED_MODULES; from then on an ordinary import statement finds it."""
    module = types.ModuleType(f"adept.metrics.sandbox.{name}")
    sys.modules[module.__name__] = module
    exec(dict(BUNDLED_MODULES)[name], vars(module))
    return module


if __name__ == "__main__":
    import_bundled("confinement")
    import_bundled("wire")
    import_bundled(sys.argv[1]).main(*sys.argv[2:])
