"""Processor time that `import tsar` adds to importing torch, pandas and scikit-learn.

python tests/benchmarks/imports.py [rounds]
"""

import subprocess
import sys

import numpy as np

CODE = """
import time
begun = time.process_time()
import torch, pandas, sklearn
between = time.process_time()
import tsar
print(between - begun, time.process_time() - between)
"""


def main() -> None:
    """Import both in new processes, and print the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    command = [sys.executable, "-c", CODE]
    # Two more fill the caches of the disk.
    runs = [subprocess.check_output(command, text=True).split() for _ in range(rounds + 2)]
    libraries, own = np.median(np.array(runs[2:], dtype=float), axis=0)
    print(f"torch, pandas, scikit-learn {libraries:.2f} s, tsar beside them {own:.2f} s")


if __name__ == "__main__":
    main()
