#!/usr/bin/env python3
"""How Firn behaves as a volume grows, as a table, a plot and JSON.

    scripts/scale.py [--sizes N,N,...] [--entries N] [--extents N] [--dir DIR] [--firn FILE] [--json FILE]

Fills one volume to each size in turn, ten thousand files to a directory, and measures there: files
made (create, write 64 bytes, close), lookups of what the kernel does not know, `stat` of what it
knows, the daemon's memory, a mount after a clean end and one after `kill -9`. Then, in a volume of
their own: a directory of many entries listed, a sparse file of 1 TiB, a file of many scattered
extents. Times are the machine's, so only their ratios mean something. Needs root, which drops the
kernel's caches and ends the daemon. Everything made is removed at the end.
"""

import argparse, json, os, random, shutil, signal, subprocess, sys, tempfile, time

PER_DIRECTORY = 10_000
MADE = 20_000
LOOKED_UP = 5_000
RUN = 2_000
PAGE = bytes(range(256)) * 16

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sizes", default="100000,1000000,10000000")
parser.add_argument("--entries", type=int, default=1_000_000)
parser.add_argument("--extents", type=int, default=1_000_000)
parser.add_argument("--dir", default=None)
parser.add_argument("--firn", default=os.environ.get("FIRN_BIN", "firn"))
parser.add_argument("--json", default=None)
args = parser.parse_args()
sizes = [int(size) for size in args.sizes.split(",") if size]

scratch = tempfile.mkdtemp(prefix="firn-scale-", dir=args.dir)
chance = random.Random(1)


def say(text):
    print(time.strftime("%T"), text, file=sys.stderr, flush=True)


def firn(*arguments):
    return subprocess.run([args.firn, *arguments], check=True, stdout=subprocess.PIPE).stdout


def forget():
    """Has the kernel forget names, attributes and pages."""
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3")


def rate(count, work):
    """Calls of `work` a second, which makes `count` of them."""
    began = time.monotonic()
    work()
    return count / (time.monotonic() - began)


class Volume:
    """A volume in the scratch directory, mounted below it."""

    def __init__(self, name):
        self.dir = os.path.join(scratch, name)
        self.root = os.path.join(scratch, name + "-mountpoint")
        os.mkdir(self.root)
        firn("init", self.dir)
        self.mount()

    def mount(self):
        began = time.monotonic()
        firn("mount", self.dir, self.root)
        assert os.path.ismount(self.root), self.root
        return time.monotonic() - began

    def umount(self):
        firn("umount", self.root)

    def daemon(self):
        return json.loads(firn("status", "--json", self.dir))["mount"]["pid"]

    def memory_mib(self):
        """What the daemon holds that is its own, now and at most."""
        with open(f"/proc/{self.daemon()}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return tuple(int(fields[name].split()[0]) // 1024 for name in ("RssAnon", "VmHWM"))

    def kill(self):
        os.kill(self.daemon(), signal.SIGKILL)
        subprocess.run(["umount", "-l", self.root], check=True)

    def path(self, number):
        return os.path.join(self.root, f"d{number // PER_DIRECTORY:05}", f"f{number:08}")

    def remove(self):
        if os.path.ismount(self.root):
            self.umount()
        shutil.rmtree(self.dir)


def make(volume, numbers):
    for number in numbers:
        path = volume.path(number)
        if number % PER_DIRECTORY == 0:
            os.mkdir(os.path.dirname(path))
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(file, PAGE[:64])
        os.close(file)


def fill(volume, numbers):
    """Makes files as fast as can be: one request each."""
    for number in numbers:
        path = volume.path(number)
        if number % PER_DIRECTORY == 0:
            os.mkdir(os.path.dirname(path))
        os.mknod(path)


def look_up(volume, numbers):
    for number in numbers:
        os.stat(volume.path(number))


def growth():
    volume, made, rows = Volume("growth"), 0, []
    for size in sizes:
        say(f"filling to {size}")
        until = max(made, size - MADE)
        fill(volume, range(made, until))
        created = rate(size - until, lambda: make(volume, range(until, size)))
        made = size
        os.sync()
        forget()
        # Of few directories, so that what is measured are lookups of files.
        directories = chance.sample(range(max(1, size // PER_DIRECTORY)), min(10, max(1, size // PER_DIRECTORY)))
        numbers = [d * PER_DIRECTORY + chance.randrange(min(size, PER_DIRECTORY)) for d in directories * (LOOKED_UP // len(directories))]
        looked_up = rate(len(numbers), lambda: look_up(volume, numbers))
        known = numbers[:RUN]
        look_up(volume, known)
        stat = rate(len(known), lambda: look_up(volume, known))
        memory, most = volume.memory_mib()
        volume.umount()
        clean = volume.mount()
        directory = os.path.join(volume.root, f"killed{size}")
        os.mkdir(directory)
        for number in range(1000):
            os.mknod(os.path.join(directory, str(number)))
        volume.kill()
        killed = volume.mount()
        look_up(volume, known)
        rows.append({
            "files": size, "created_per_s": created, "looked_up_per_s": looked_up, "stat_per_s": stat,
            "memory_mib": memory, "most_memory_mib": most,
            "clean_mount_s": clean, "mount_after_kill_s": killed,
        })
        say(json.dumps(rows[-1]))
    volume.remove()
    return rows


def listing(volume):
    """A directory of many entries: until its first one is there, and all of them."""
    say(f"a directory of {args.entries} entries")
    directory = os.path.join(volume.root, "many")
    os.mkdir(directory)
    for number in range(args.entries):
        os.mknod(os.path.join(directory, f"f{number:08}"))
    forget()
    began = time.monotonic()
    with os.scandir(directory) as entries:
        next(entries)
        first = time.monotonic() - began
        count = 1 + sum(1 for _ in entries)
    assert count == args.entries, count
    return {"entries": count, "first_entry_ms": first * 1000, "entries_per_s": count / (time.monotonic() - began)}


def overwrite(file, offsets):
    for offset in offsets:
        os.pwrite(file, PAGE, offset)
    os.fsync(file)


def read(file, offsets):
    for offset in offsets:
        assert os.pread(file, len(PAGE), offset) == PAGE, offset


def write_and_read(volume, name, offsets_of):
    """Pages written at some offsets of a file and read back by a kernel that forgot them."""
    path = os.path.join(volume.root, name)
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    offsets = offsets_of(file)
    written = rate(len(offsets), lambda: overwrite(file, offsets))
    os.close(file)
    forget()
    file = os.open(path, os.O_RDONLY)
    result = {"written_per_s": written, "read_per_s": rate(len(offsets), lambda: read(file, offsets))}
    os.close(file)
    return result


def sparse(volume):
    """Pages at random places of 1 TiB beside as many at random places of 16 MiB."""
    say("a sparse file of 1 TiB")

    def places(length):
        def offsets(file):
            os.ftruncate(file, length)
            return [page * len(PAGE) for page in chance.sample(range(length // len(PAGE)), RUN)]
        return offsets

    small = write_and_read(volume, "small", places(16 << 20))
    large = write_and_read(volume, "sparse", places(1 << 40))
    return {name: large[name] / small[name] for name in small}


def scattered(volume):
    """Every other page of a file, in order of chance: the last of them beside the first."""
    say(f"a file of {args.extents} extents")
    pages = list(range(0, 2 * args.extents, 2))
    chance.shuffle(pages)
    offsets = [page * len(PAGE) for page in pages]
    path = os.path.join(volume.root, "scattered")
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    rates = {}
    for name, part in (("first", offsets[:RUN]), ("rest", offsets[RUN:-RUN]), ("last", offsets[-RUN:])):
        rates[name] = rate(len(part), lambda: overwrite(file, part))
        forget()
        some = chance.sample(part, RUN)
        rates[name + "_read"] = rate(len(some), lambda: read(file, some))
    os.close(file)
    return {
        "extents": args.extents, "written_last_to_first": rates["last"] / rates["first"],
        "read_last_to_first": rates["last_read"] / rates["first_read"],
    }


def table(rows):
    first = rows[0]
    print("| files | create | lookup | `stat` | daemon memory, most | clean mount | mount after `kill -9` |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        ratios = [row[name] / first[name] for name in ("created_per_s", "looked_up_per_s", "stat_per_s")]
        print(f"| {row['files']:,} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios)
              + f" | {row['most_memory_mib']} MiB | {row['clean_mount_s']:.2f} s | {row['mount_after_kill_s']:.2f} s |")


def plot(rows):
    names = ", ".join(f'"{row["files"]:,}"' for row in rows)
    print("\n```mermaid\nxychart-beta\n    title \"Rate at each size, of that at the first\"")
    print(f"    x-axis \"files\" [{names}]\n    y-axis \"share\" 0 --> 1.5")
    for name in ("created_per_s", "looked_up_per_s"):
        print("    line [" + ", ".join(f"{row[name] / rows[0][name]:.2f}" for row in rows) + "]")
    print("```\n")


def main():
    results = {"growth": growth() if sizes else []}
    volume = Volume("shapes")
    if args.entries:
        results["listing"] = listing(volume)
    if args.extents:
        results["sparse"] = sparse(volume)
        results["scattered"] = scattered(volume)
    volume.remove()
    if results["growth"]:
        table(results["growth"])
        plot(results["growth"])
    print(json.dumps({name: part for name, part in results.items() if name != "growth"}, indent=2))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=2)


try:
    main()
finally:
    # Whatever is left mounted, also by a daemon that has died.
    for name in os.listdir(scratch):
        if name.endswith("-mountpoint"):
            path = os.path.join(scratch, name)
            subprocess.run([args.firn, "umount", path], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["umount", "-l", path], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(scratch)
