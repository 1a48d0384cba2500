#!/usr/bin/env python3
"""FUSE requests behind each system call, counted by the daemon, as a table or as JSON.

    scripts/requests.py [--json] [--firn FILE] [--rows REGEX]

Makes a volume in a temporary directory, mounts it, does each operation a hundred times and divides.
What the kernel answers from its caches is no request; FORGET, which nobody waits for, is shown and
not counted in the sum. "cold" means just mounted: the kernel remembers nothing. Runs as root or as
an ordinary user, who needs fusermount3.
"""

import argparse, json, os, re, shutil, subprocess, sys, tempfile, time

COUNT = 100
PAGE = bytes(range(256)) * 16

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--json", action="store_true")
parser.add_argument("--firn", default=os.environ.get("FIRN_BIN", "firn"))
parser.add_argument("--rows", default=".")
args = parser.parse_args()

scratch = tempfile.mkdtemp(prefix="firn-requests-")
volume, mount, source = (os.path.join(scratch, name) for name in ("volume", "mountpoint", "source"))


def firn(*arguments):
    return subprocess.run([args.firn, *arguments], check=True, stdout=subprocess.PIPE).stdout


def counts():
    return json.loads(firn("status", "--json", volume))["counters"]["kernel_requests"]


def settled():
    """Counters once what goes on behind a call, such as RELEASE, has come in.

    No descriptor may be open on the mount: starting a program closes a copy of it, which is FLUSH.
    """
    before = counts()
    for _ in range(100):
        time.sleep(0.1)
        now = counts()
        if now == before:
            return now
        before = now
    sys.exit("requests.py: something else uses the mount")


def remount():
    firn("umount", mount)
    firn("mount", volume, mount)


def here(n):
    return os.path.join(mount, "work", "file-%03d" % n)


def put(path, flags=os.O_CREAT | os.O_EXCL, sync=False):
    file = os.open(path, os.O_WRONLY | flags, 0o644)
    os.write(file, PAGE)
    if sync:
        os.fsync(file)
    os.close(file)


def get(path):
    file = os.open(path, os.O_RDONLY)
    assert len(os.read(file, 8192)) == len(PAGE)
    os.close(file)


def files():
    for n in range(COUNT):
        put(here(n))


def files_seen():
    files()
    for n in range(COUNT):
        os.stat(here(n))


def cold_files():
    files()
    remount()
    # What lies above is no part of an operation.
    os.stat(os.path.join(mount, "work"))


def links():
    for n in range(COUNT):
        os.symlink("target", here(n))


def directories():
    for n in range(COUNT):
        os.mkdir(here(n))


def other(n):
    return here(n) + ".other"


def both():
    files()
    for n in range(COUNT):
        put(other(n))


def xattrs():
    files()
    for n in range(COUNT):
        os.setxattr(here(n), "user.a", b"value")


def missed():
    for n in range(COUNT):
        os.path.exists(here(n))


def tree():
    """Ten directories of fifty files."""
    shutil.rmtree(source, ignore_errors=True)
    for n in range(10):
        os.makedirs("%s/d%d" % (source, n))
        for m in range(50):
            put("%s/d%d/f%d" % (source, n, m))
    run("tar", "-cf", source + ".tar", "-C", source, ".")


def tree_here():
    tree()
    run("cp", "-a", source, here(0))


def tree_cold():
    tree_here()
    remount()
    os.stat(os.path.join(mount, "work"))


def synced():
    tree()
    run("rsync", "-a", source + "/", here(0) + "/")


def listed():
    """A hundred directories of ten files."""
    for n in range(COUNT):
        os.mkdir(here(n))
        for m in range(10):
            put("%s/%d" % (here(n), m))
    remount()
    for n in range(COUNT):
        os.stat(here(n))


def listed_twice():
    listed()
    for n in range(COUNT):
        os.listdir(here(n))


def wide():
    """A thousand names in one directory, which no single answer holds."""
    for n in range(1000):
        put("%s-%d" % (here(0), n))
    remount()
    os.stat(os.path.join(mount, "work"))


def wide_listed():
    wide()
    run("ls", "-lU", os.path.join(mount, "work"))


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def each(call):
    def work():
        for n in range(COUNT):
            call(n)

    return COUNT, work


def append_synced():
    # Through one descriptor, whose opening and closing vanish among so many.
    file = os.open(here(0), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for n in range(COUNT):
        os.write(file, PAGE)
        os.fsync(file)
    os.close(file)


def nothing():
    pass


def once(count, *command):
    return count, lambda: run(*command)


# Name, what is there before, how many of what, and the operation.
ROWS = [
    ("create, write 4 KiB, close", nothing, *each(lambda n: put(here(n)))),
    ("open, write over 4 KiB (O_TRUNC), close", files_seen, *each(lambda n: put(here(n), os.O_TRUNC))),
    ("open, append 4 KiB, close", files_seen, *each(lambda n: put(here(n), os.O_APPEND))),
    ("append 4 KiB, fsync", nothing, COUNT, append_synced),
    ("open, read, close: cached", files_seen, *each(lambda n: get(here(n)))),
    ("open, read, close: cold", cold_files, *each(lambda n: get(here(n)))),
    ("stat: after a write and close", files, *each(lambda n: os.stat(here(n)))),
    ("stat: cached", files_seen, *each(lambda n: os.stat(here(n)))),
    ("stat: cold", cold_files, *each(lambda n: os.stat(here(n)))),
    ("stat of a missing name: first", nothing, *each(lambda n: os.path.exists(here(n)))),
    ("stat of a missing name: again", missed, *each(lambda n: os.path.exists(here(n)))),
    ("mkdir", nothing, *each(lambda n: os.mkdir(here(n)))),
    ("rmdir", directories, *each(lambda n: os.rmdir(here(n)))),
    ("unlink", files, *each(lambda n: os.unlink(here(n)))),
    ("rename to a new name", files, *each(lambda n: os.rename(here(n), other(n)))),
    ("rename over a file", both, *each(lambda n: os.rename(here(n), other(n)))),
    ("link", files, *each(lambda n: os.link(here(n), other(n)))),
    ("symlink", nothing, *each(lambda n: os.symlink("target", here(n)))),
    ("readlink: first", links, *each(lambda n: os.readlink(here(n)))),
    ("chmod", files, *each(lambda n: os.chmod(here(n), 0o600))),
    ("chown", files, *each(lambda n: os.chown(here(n), os.getuid(), os.getgid()))),
    ("utimensat", files, *each(lambda n: os.utime(here(n), (1, 1)))),
    ("setxattr", files, *each(lambda n: os.setxattr(here(n), "user.a", b"value"))),
    ("getxattr", xattrs, *each(lambda n: os.getxattr(here(n), "user.a"))),
    ("list a directory of 10: first", listed, *each(lambda n: os.listdir(here(n)))),
    ("list a directory of 10: again", listed_twice, *each(lambda n: os.listdir(here(n)))),
    ("ls, 1,000 files in one directory, cold, in all", wide, *once(1, "ls", "-U", os.path.join(mount, "work"))),
    ("ls -l, 1,000 files in one directory, cold, each", wide, *once(1000, "ls", "-lU", os.path.join(mount, "work"))),
    ("ls -l again, each", wide_listed, *once(1000, "ls", "-lU", os.path.join(mount, "work"))),
    ("find -newer, 10 directories of 50 files, cold, in all", tree_cold, *once(1, "find", here(0), "-newermt", "2000-01-01")),
    ("du of the same, cold, in all", tree_cold, *once(1, "du", "-s", here(0))),
    ("tar x, each file", lambda: (tree(), os.mkdir(here(0))), *once(500, "tar", "-xf", source + ".tar", "-C", here(0))),
    ("cp -a, each file", tree, *once(500, "cp", "-a", source, here(0))),
    ("rsync -a, each file", tree, *once(500, "rsync", "-a", source + "/", here(0) + "/")),
    ("rsync -a again, nothing new, each file", synced, *once(500, "rsync", "-a", source + "/", here(0) + "/")),
    ("rm -rf, each file", tree_here, *once(500, "rm", "-rf", here(0))),
]


def measure(before, count, work):
    os.mkdir(os.path.join(mount, "work"))
    before()
    start = settled()
    work()
    end = settled()
    shutil.rmtree(os.path.join(mount, "work"))
    asked = {kind: (end[kind] - start.get(kind, 0)) / count for kind in end}
    return {kind: round(each, 1) for kind, each in asked.items() if round(each, 1) > 0}


def main():
    os.mkdir(mount)
    firn("init", volume)
    firn("mount", volume, mount)
    assert os.path.ismount(mount), "not mounted"
    found = {}
    try:
        for name, before, count, work in ROWS:
            if re.search(args.rows, name):
                begun = time.monotonic()
                found[name] = measure(before, count, work)
                print("%6.1f s %s" % (time.monotonic() - begun, name), file=sys.stderr)
    finally:
        firn("umount", mount)
    if args.json:
        return print(json.dumps(found))
    for name, asked in found.items():
        total = sum(each for kind, each in asked.items() if kind != "forget")
        kinds = ", ".join(kind if each == 1 else "%g %s" % (each, kind) for kind, each in asked.items())
        print("| %s | %g | %s |" % (name, round(total, 1), kinds))


try:
    main()
finally:
    if not os.path.ismount(mount):
        shutil.rmtree(scratch)
