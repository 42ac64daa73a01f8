"""A libvirt of its own: virtlogd and libvirtd in private namespaces, with folders of their own in the places where
libvirt keeps its things, so that a user's libvirt neither sees this nor is seen. Needs root.

enter() starts the program again inside; Host starts the daemons and runs virsh.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

from certificates import Certificates
from guest import GuestError

INSIDE = "KITE_LIBVIRT_INSIDE"
PROGRAMS = {"libvirtd": "libvirt-daemon-system", "virtlogd": "libvirt-daemon-system", "virsh": "libvirt-clients",
            "unshare": "util-linux", "ip": "iproute2"}
QEMU_CONF = """user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
vnc_tls = 1
vnc_tls_x509_cert_dir = "/etc/libvirt/certificates"
"""
LIBVIRTD_CONF = 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n'
LIMIT = 120


def why_not():
    """What is missing for the suite, or ""."""
    if os.geteuid() != 0:
        return "libvirt's system daemon wants root"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"'{program}' is missing; install {package}"
    probe = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"],
                           capture_output=True, text=True)
    return "" if probe.returncode == 0 else f"this host makes no namespaces: {probe.stderr.strip()}"


def enter():
    """Starts this program again in namespaces of its own, unless it is there; processes end when it does."""
    if os.environ.get(INSIDE):
        become_child_of_init()
        return
    os.environ[INSIDE] = "1"
    inner = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]
    os.execvp(inner[0], inner + sys.argv)


def become_child_of_init():
    """The first process of a namespace buries the others: libvirt waits until a machine's process is gone for good."""
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xff)


class Host:
    """The daemons, and virsh that talks to them."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="kite-libvirt-")
        self.daemons = {}
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        for place in ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/run"):
            own = self.folder + place
            os.makedirs(own)
            os.makedirs(place, exist_ok=True)
            subprocess.run(["mount", "--bind", own, place], check=True)
        for folder in ("/etc/libvirt/qemu", "/run/libvirt", "/run/lock"):
            os.makedirs(folder)
        self.certificates = Certificates("/etc/libvirt/certificates")
        self.write("/etc/libvirt/qemu.conf", QEMU_CONF)
        self.write("/etc/libvirt/libvirtd.conf", LIBVIRTD_CONF)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.start("virtlogd", "/run/libvirt/virtlogd-sock")
        self.start("libvirtd", "/run/libvirt/libvirt-sock")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in list(self.daemons):
            self.stop(name)
        # The folders go with their mounts, which other namespaces do not have.
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def write(path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def start(self, name, socket):
        log = open(f"{self.folder}/{name}.log", "ab")
        if os.path.exists(socket):
            os.unlink(socket)
        self.daemons[name] = subprocess.Popen([shutil.which(name)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + LIMIT
        while not os.path.exists(socket):
            if self.daemons[name].poll() is not None or time.monotonic() > deadline:
                raise GuestError(f"{name} did not start: {self.log(name)}")
            time.sleep(0.05)

    def stop(self, name):
        daemon = self.daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(LIMIT)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def restart_libvirtd(self):
        self.stop("libvirtd")
        self.start("libvirtd", "/run/libvirt/libvirt-sock")

    def log(self, name):
        with open(f"{self.folder}/{name}.log", encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]

    def machine_log(self, name):
        try:
            with open(f"/var/log/libvirt/qemu/{name}.log", encoding="utf-8", errors="replace") as file:
                return file.read()[-2500:]
        except OSError as error:
            return str(error)

    def try_virsh(self, *words):
        return subprocess.run(["virsh", "-c", "qemu:///system", *words], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=LIMIT * 4, env={**os.environ, "LC_ALL": "C"})

    def virsh(self, *words):
        """What a command says; an error is one of the test's."""
        done = self.try_virsh(*words)
        if done.returncode != 0:
            raise GuestError(f"virsh {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def refused(self, *words):
        """The error of a command that must not succeed."""
        done = self.try_virsh(*words)
        if done.returncode == 0:
            raise GuestError(f"virsh {' '.join(words)} succeeded: {done.stdout.strip()}")
        return done.stderr.strip()
