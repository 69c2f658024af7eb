"""Runs a command as container runtimes do: system calls are refused that their default profile allows only to who has
a capability. For x86-64.

    python3 refusing.py COMMAND [ARGUMENT ...]
"""

import ctypes
import errno
import os
import struct
import sys

# mbind, set_mempolicy, get_mempolicy, migrate_pages, move_pages, unshare, mount, setns, perf_event_open, bpf,
# userfaultfd, keyctl and io_uring_setup: of all that is refused, what servers are known to try.
REFUSED = (237, 238, 239, 256, 279, 272, 165, 308, 298, 321, 323, 250, 425)
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2


class Program(ctypes.Structure):
    """A filter, as the kernel takes it."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def main() -> None:
    """Install the filter, and become the command."""
    steps = [(LOAD, 0, 0, 0)]
    for place, number in enumerate(REFUSED):
        # To the last step but one where it is this call, else to the next.
        steps.append((EQUAL, len(REFUSED) - place, 0, number))
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    program = Program(len(steps), code)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(SECCOMP, FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
