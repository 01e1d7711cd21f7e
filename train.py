"""python train.py --task rte --method adept --prompt_len 60 --bottleneck 10: the same as python -m adept train ..."""

import sys

from adept.base import distributed
from adept.commands import main as commands


def main(arguments: list[str]) -> int:
    return commands.main(["train", *arguments])


if __name__ == "__main__":
    distributed.shutdown(main(sys.argv[1:]))
