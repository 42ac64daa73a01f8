"""Runs a program under a seccomp filter that refuses one system call, as an older or a hardened kernel does."""
import ctypes
import errno
import struct

IO_URING_SETUP = 425
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
BPF_LOAD_NUMBER, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06  # ld [0] is seccomp_data.nr
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


class Program(ctypes.Structure):
    """struct sock_fprog"""
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def refuse(call: int):
    """For subprocess's preexec_fn: `call` fails with ENOSYS from now on, in this process and those it starts."""
    code = b"".join(struct.pack("=HBBI", *step) for step in (
        (BPF_LOAD_NUMBER, 0, 0, 0), (BPF_JUMP_EQUAL, 0, 1, call), (BPF_RETURN, 0, 0, ERRNO | errno.ENOSYS),
        (BPF_RETURN, 0, 0, ALLOW)))
    memory = ctypes.create_string_buffer(code)
    program = Program(len(code) // 8, ctypes.cast(memory, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)

    def install() -> None:
        for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
            if libc.prctl(*arguments) != 0:
                raise OSError(ctypes.get_errno(), "prctl")

    install.code = memory  # lives as long as it
    return install
