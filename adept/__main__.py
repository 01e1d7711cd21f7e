"""python -m adept COMMAND"""

from adept.commands.main import console_script

if __name__ == "__main__":
    console_script()
