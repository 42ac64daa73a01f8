#!/usr/bin/env python3
"""Writes the man page from what the program says of itself.

usage: man.py KITE            writes docs/kite.1
       man.py --check KITE    exit status 1 when docs/kite.1 does not say what 'KITE -help' says
"""
import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "kite.1"

HEAD = r""".\" Written by tools/man.py from 'kite -help'; change the option tables, then run it again.
.TH KITE 1 "" "Kite" "User Commands"
.SH NAME
kite \- run a PC in a process
.SH SYNOPSIS
.B kite
.RI [ OPTION ]...
.br
.B kite run
.IR MACHINE.toml " [" OPTION ]...
.br
.BR "kite img" " | " "kite io" " | " "kite nbd"
.RI [ ARGUMENT ]...
.SH DESCRIPTION
Kite is a virtual machine monitor for Linux hosts on x86-64. It gives a guest a PC: processors, memory, devices and
firmware or a kernel to start. Guest code runs on
.I /dev/kvm
where the host has hardware virtualization, and otherwise on a processor in software; the default,
.BR "\-accel auto" ,
finds out which and says so in one line.
.PP
Options are those of QEMU where Kite has the same thing. A name or value that Kite does not know is refused, with the
nearest one that it does know. Options with two dashes are the same as with one.
"""

TAIL = r""".SH IMAGE TOOLS
.B kite img
makes, converts, checks and changes disk images,
.B kite io
reads and writes them by commands, and
.B kite nbd
serves one to clients of the network block device protocol, on a TCP port
.RB ( \-p ", " \-b )
or a unix socket
.RB ( \-k ).
They take the arguments of qemu\-img, qemu\-io and qemu\-nbd;
.B \-\-help
lists them. Links to the program whose names end in
.BR \-img ", " \-io " and " \-nbd
are these tools, too.
.SH CONFIGURATION FILES
.B kite run
.I MACHINE.toml
reads a machine from a TOML file; options behind it are applied after those of the file. Every option is a key of the
same name:
.IP \(bu 2
a string or a number is the option's text, as it would stand on the command line;
.IP \(bu 2
.B true
gives an option that takes no value;
.IP \(bu 2
a table is the option's settings, with dotted names for tables within it; commas need no doubling;
.IP \(bu 2
an array, or several
.RI [[ table ]]s,
gives the option once for each element, in the order of the file.
.PP
.BR memory ", " cpus ", " board ", " paused " and " command\-line
stand for
.BR \-m ", " \-smp ", " \-machine ", " \-S " and " \-append .
The table
.B cpu
has the keys
.B model
and
.BR flags .
Relative paths are relative to the directory in which
.B kite
was started.
.PP
.nf
.RS
name = "web"
memory = "2G"
cpus = 2
accel = ["kvm", "jit"]
kernel = "vmlinuz"
initrd = "initrd.gz"
command\-line = "console=ttyS0"
serial = "mon:stdio"

[machine]
type = "pc"
hpet = false

[cpu]
model = "max"
flags = ["\-pcid"]

[[device]]
driver = "isa\-debug\-exit"
iobase = 0xf4
.RE
.fi
.PP
.B \-readconfig
reads the older form: lines of
.RI [ group "] or [" group \(dq id \(dq]
and
.IR key " = \(dq" value \(dq.
.SH EXIT STATUS
0 when the guest powered off or the monitor ended the machine; 1 after an error, which is told on standard error in one
or two lines; what the guest asks for through
.BR isa\-debug\-exit ;
128 and the number of the signal that ended Kite before the machine was made.
.SH FILES
.I /dev/kvm
is the host's virtualization; access to it is usually given by the group
.BR kvm .
.SH SEE ALSO
The project's README and the pages in
.IR docs/ .
"""


def escaped(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def page(kite):
    text = subprocess.run([kite, "-help"], check=True, stdout=subprocess.PIPE, text=True).stdout
    out = [HEAD, ".SH OPTIONS\n"]
    lines = iter(text.splitlines())
    for line in lines:
        heading = re.fullmatch(r"([A-Z][^:]*):", line)
        option = re.fullmatch(r"  (-\S+(?: \S+)*?)(?:\s{2,}(.*)|\s*)", line)
        if heading:
            out.append(f'.SS "{escaped(heading[1])}"\n')
        elif option:
            name, _, argument = option[1].partition(" ")
            told = option[2] if option[2] else next(lines).strip()
            out.append(".TP\n")
            out.append(f".BI {escaped(name)} \" {escaped(argument)}\"\n" if argument else f".B {escaped(name)}\n")
            out.append(escaped(told) + "\n")
    return "".join(out + [TAIL])


def main():
    arguments = sys.argv[1:]
    check = arguments[:1] == ["--check"]
    if check:
        arguments = arguments[1:]
    if len(arguments) != 1:
        sys.exit(__doc__)
    made = page(arguments[0])
    if not check:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        sys.exit("docs/kite.1 is not what 'kite -help' says: run tools/man.py KITE")


main()
