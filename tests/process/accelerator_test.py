#!/usr/bin/env python3
"""Which accelerator the program takes, from outside: -accel auto, and a /dev/kvm that is absent, forbidden or no KVM.

usage: accelerator_test.py KITE
Ends with 'accelerator: N passed, N failed, N skipped'.
"""
import os
import stat
import struct
import subprocess
import sys
import tempfile

KITE = ""
LIMIT = 60  # seconds that end a hung test; none measures time
NOBODY = 65534
EXIT_STATUS = 3  # what the guest writes to port 0xf4, (1 << 1) | 1


class Skip(Exception):
    pass


def check(condition, why):
    if not condition:
        raise AssertionError(why)


def tiny_guest(path):
    """An ELF32 image for multiboot 1: mov ecx, 1000; 1: dec ecx; jnz 1b; mov al, 1; out 0xf4, al; hlt."""
    base, header = 0x100000, 84
    magic, flags = 0x1badb002, 0
    text = struct.pack("<III", magic, flags, -(magic + flags) & 0xffffffff) 
    text += b"\xb9\xe8\x03\x00\x00\x49\x75\xfd\xb0\x01\xe6\xf4\xf4\xeb\xfd"
    size = header + len(text)
    elf = struct.pack("<4s4B8xHHIIIIIHHHHHH", b"\x7fELF", 1, 1, 1, 0, 2, 3, 1, base + header + 12, 52, 0, 0, 52, 32, 1, 0,
                      0, 0)
    segment = struct.pack("<8I", 1, 0, base, base, size, size, 7, 0x1000)
    with open(path, "wb") as file:
        file.write(elf + segment + text)


def run(*arguments, before=(), **options):
    """Runs the tiny guest; `before` is a command that runs Kite."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        image = f"{folder}/tiny.elf"
        tiny_guest(image)
        command = [*before, KITE, "-nodefaults", "-display", "none", "-serial", "none", "-device",
                   "isa-debug-exit,iobase=0xf4,iosize=1", "-kernel", image, *arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=LIMIT, check=False, text=True, **options)


def need_kvm():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("there is no /dev/kvm that this user may open")


def in_namespace(script):
    """A command that runs another after `script`, in a mount namespace of its own."""
    if os.geteuid() != 0:
        raise Skip("a mount namespace needs root")
    before = ["unshare", "--mount", "sh", "-c", f'{script} && exec "$0" "$@"']
    if subprocess.run([*before, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        raise Skip("no mount namespace can be made here")
    return before


def without_kvm():
    return in_namespace("mount -t tmpfs -o mode=755 none /dev && mknod -m 666 /dev/null c 1 3")


def with_wrong_kvm():
    if not os.path.exists("/dev/kvm"):
        raise Skip("there is no /dev/kvm to hide")
    return in_namespace("mount --bind /dev/null /dev/kvm")


def as_nobody():
    if os.geteuid() != 0:
        raise Skip("changing the user needs root")
    try:
        mode = os.stat("/dev/kvm").st_mode
    except FileNotFoundError as error:
        raise Skip("there is no /dev/kvm") from error
    if mode & stat.S_IWOTH:
        raise Skip("everyone may open /dev/kvm here")
    before = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if subprocess.run([*before, KITE, "-version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                      check=False).returncode:
        raise Skip("another user cannot run the program from where it is")
    return before


# --- tests: functions named test_..., an assertion fails them -----------------------------------------------------------

def refused(done, *words):
    check(done.returncode == 1, f"status {done.returncode}: {done.stderr}")
    check(len(done.stderr.strip().splitlines()) == 1, f"not one line: {done.stderr}")
    for word in words:
        check(word in done.stderr, f"'{word}' is not said: {done.stderr}")


def falls_back(done, *words):
    check(done.returncode == EXIT_STATUS, f"status {done.returncode}: {done.stderr}")
    lines = done.stderr.strip().splitlines()
    check(len(lines) == 1 and "accelerator jit" in lines[0], done.stderr)
    for word in words:
        check(word in lines[0], f"'{word}' is not said: {done.stderr}")


def test_kvm_runs_a_guest():
    need_kvm()
    done = run("-accel", "kvm")
    check(done.returncode == EXIT_STATUS, f"status {done.returncode}: {done.stderr}")


def test_auto_says_in_one_line_what_it_takes():
    done = run()
    check(done.returncode == EXIT_STATUS, f"status {done.returncode}: {done.stderr}")
    lines = done.stderr.strip().splitlines()
    check(len(lines) == 1 and ("accelerator jit: " in lines[0] or "accelerator kvm: " in lines[0]), done.stderr)


def test_jit_says_nothing():
    done = run("-accel", "jit")
    check(done.returncode == EXIT_STATUS and done.stderr == "", f"status {done.returncode}: {done.stderr}")


def translation_log(*arguments, items="out_asm"):
    """What -d writes about the tiny guest."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(*arguments, "-d", items, "-D", f"{folder}/log")
        check(done.returncode == EXIT_STATUS, f"status {done.returncode}: {done.stderr}")
        with open(f"{folder}/log", encoding="ascii") as file:
            return file.read()


def test_out_asm_shows_host_code_under_the_guests():
    log = translation_log("-accel", "jit")
    block = log[log.index("dec ecx"):]
    check("jnz" in block and "out of line" in block, log)
    check(log.count("dec ecx") >= 2, f"the guest's and the host's are one instruction here: {log}")


def test_op_shows_what_the_translator_decides():
    log = translation_log("-accel", "jit", items="op")
    lines = {line.split(": ")[1].split(" ")[0]: line for line in log.splitlines() if line.startswith("  ")}
    # The way out for the alarm is before what makes the flags of the branch back.
    check("native" in lines["dec"] and "-> EFLAGS" in lines["dec"] and "out of line: exit" in lines["dec"], log)
    check("native" in lines["jnz"], log)
    check("interpreted: " in lines["out"], log)


def test_nothing_is_translated_when_that_is_off():
    log = translation_log("-accel", "jit,translate=off", items="op,out_asm")
    check(log == "", log)


def test_perf_map_names_translated_code():
    with tempfile.TemporaryDirectory() as folder:
        marker = f"{folder}/pid"
        done = run("-accel", "jit,perf-map=on", before=["sh", "-c", f'echo $$ >{marker}; exec "$0" "$@"'])
        check(done.returncode == EXIT_STATUS, f"status {done.returncode}: {done.stderr}")
        with open(marker, encoding="ascii") as file:
            path = f"/tmp/perf-{file.read().strip()}.map"
    with open(path, encoding="ascii") as file:
        lines = file.read().splitlines()
    os.unlink(path)
    names = [line.split(" ", 2) for line in lines]
    check(all(len(words) == 3 and int(words[0], 16) and int(words[1], 16) for words in names), lines)
    check(any(words[2].startswith("guest ") for words in names), lines)
    check(any("runtime" in words[2] for words in names), lines)


def test_absent_kvm_is_refused():
    refused(run("-accel", "kvm", before=without_kvm()), "/dev/kvm", "no such device", "modprobe", "-accel jit")


def test_auto_without_kvm_takes_jit():
    falls_back(run(before=without_kvm()), "no such device")


def test_forbidden_kvm_is_refused():
    refused(run("-enable-kvm", before=as_nobody()), "/dev/kvm", "no permission", "group", "-accel jit")


def test_auto_with_forbidden_kvm_takes_jit():
    falls_back(run(before=as_nobody()), "no permission")


def test_what_is_no_kvm_is_refused():
    refused(run("-machine", "pc,accel=kvm", before=with_wrong_kvm()), "/dev/kvm", "not a KVM device")


def test_a_list_says_why_the_first_failed():
    done = run("-accel", "kvm:jit", before=without_kvm())
    check(done.returncode == EXIT_STATUS, f"status {done.returncode}: {done.stderr}")
    check("no such device" in done.stderr and "using accelerator jit" in done.stderr, done.stderr)


def test_a_list_that_fails_names_every_reason():
    done = run("-accel", "xen", "-accel", "kvm", before=without_kvm())
    check(done.returncode == 1, f"status {done.returncode}: {done.stderr}")
    check("Xen device model" in done.stderr and "no such device" in done.stderr, done.stderr)


def main():
    global KITE
    KITE = os.path.abspath(sys.argv[1])
    passed = failed = skipped = 0
    for name, test in sorted(globals().items()):
        if not name.startswith("test_") or (len(sys.argv) > 2 and sys.argv[2] not in name):
            continue
        try:
            test()
            passed += 1
        except Skip as reason:
            skipped += 1
            print(f"SKIP {name}: {reason}", flush=True)
        except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"FAIL {name}: {error!r}", flush=True)
    print(f"accelerator: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
