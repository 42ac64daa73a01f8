#!/usr/bin/env python3
"""Real programs inside a Linux guest: gcc, python3, openssl, 7z, xz, sqlite and a shell script of 2,000 processes, on
Kite's software CPU beside the installed qemu-system-x86_64 -accel tcg, in one run, and on the host in a chroot.

usage: bench/programs_bench.py [--root DIR] [--kite BINARY] [--rounds N] [--accel jit,...] [--no-qemu] ...
The programs are Debian's own, put into DIR (kept, and used again) by mmdebstrap; root is needed for that and for the
chroot.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import tempfile

import side_by_side

PACKAGES = "gcc,libc6-dev,python3-minimal,openssl,p7zip-full,xz-utils,sqlite3,bash"
INIT = """#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
mount -t proc proc /proc; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
echo
/bench.sh
echo "bench: done"
echo o >/proc/sysrq-trigger
sleep 100
"""
SCRIPT = r"""#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
cd /tmp || exit 1
run() {  # NAME CLASS COMMAND: its output is the checksum
  local begin=${EPOCHREALTIME/./} sum
  sum=$(eval "$3" 2>&1 | md5sum)
  local end=${EPOCHREALTIME/./}
  echo "case $1 $2 $((end - begin)) ${sum%% *}"
}
for ((i = 0; i < 400; ++i)); do
  echo "int f$i(int a, int *b) { int s = a; for (int i = 0; i < $i; ++i) s += b[i] * (a ^ $i); switch (s & 3) {"
  echo "case 0: return s / ($i + 1); case 1: return f$i(a - 1, b); default: return s % ($i + 3); } }"
done >code.c
head -c 6000000 /usr/bin/python3.11 >data.bin
cat >work.py <<'EOF'
words = {}
for i in range(1500000):
    key = "k%d" % (i * 7919 % 5003)
    words[key] = words.get(key, 0) + i
print(sum(words.values()), sorted(words)[:3], sum(x * x % 7 for x in range(400000)))
EOF
cat >work.sql <<'EOF'
create table t(a integer primary key, b text, c integer);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
insert into t select i, 'row ' || (i * 7919 % 1000), i * 31 % 977 from n;
create index x on t(c);
select count(*), sum(a), max(b) from t where c between 100 and 300;
select b, count(*), sum(c) from t group by b order by 2 desc, 1 limit 5;
EOF
head -c 30000000 /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null >big.bin
run gcc integer 'gcc -O1 -w -S -o - code.c'
run python3 integer 'python3 work.py'
run sqlite integer 'sqlite3 :memory: <work.sql'
run xz integer 'xz -3 -T1 -c data.bin'
run 7z integer '7z a -mx3 -mmt1 -so -txz -an -si <data.bin'
run openssl-sha vector 'openssl dgst -sha256 big.bin'
run openssl-aes vector 'openssl enc -aes-256-cbc -K 01 -iv 02 -in big.bin'
run openssl-chacha vector 'openssl enc -chacha20 -K 01 -iv 02 -in big.bin'
run shell-2000 system 'for ((i = 0; i < 2000; ++i)); do /bin/true; done'
"""


def main():
    parser = argparse.ArgumentParser()
    side_by_side.add_arguments(parser, "2500")
    parser.add_argument("--root", default="build/guests/programs")
    options = parser.parse_args()
    root = pathlib.Path(options.root)
    if not (root / "usr/bin/gcc").exists():
        subprocess.run(["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)], check=True)
    for name, text in (("init", INIT), ("bench.sh", SCRIPT)):
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(root / waste, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        initrd = side_by_side.pack(root, os.path.join(folder, "initrd.gz"))
        side_by_side.compare(options, initrd, ["chroot", str(root), "/bench.sh"])


if __name__ == "__main__":
    main()
