"""The program that `scale.child.Child` starts: `python -m wholebody.scale.child_process HANDLE`."""

import sys
from multiprocessing.connection import Connection

from wholebody.scale.child import serve

if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
