#!/usr/bin/env python3
"""Writes access traces of other systems as traces of Firn (tiering/FORMAT.md, "Trace").

    traces.py FORMAT INPUT... > TRACE

FORMAT is one of
    swim      Hadoop jobs with input paths (SWIM, TSV): one read of each input path, at the time of
              the job; its size is the largest seen so far. Writes have no paths and are left out.
    twitter   time in s, object, size, ... (CSV, may be xz)
    ids       32-bit ids, little-endian, in the order of requests (may be xz). Times and sizes are not
              known: a request takes a second, an item 4 KiB.
    clf       access logs in the common log format: successful GETs; an item is a path without its
              query, its size the largest answer so far, its group the directory, its type the
              extension, its owner the client.
"""
import lzma
import re
import struct
import sys
import zlib
from datetime import datetime


def open_bytes(path):
    return lzma.open(path, "rb") if path.endswith(".xz") else open(path, "rb")


def number(text):
    return zlib.crc32(text.encode())


def swim(paths):
    ids, sizes = {}, {}
    for path in paths:
        for line in open_bytes(path):
            fields = line.decode().rstrip("\n").split("\t")
            at_ms, size = int(fields[1]) * 1000, int(fields[3])
            for name in filter(None, fields[6:]):
                item = ids.setdefault(name, len(ids))
                sizes[name] = max(sizes.get(name, 0), size)
                yield at_ms, item, size, sizes[name], 0, 0, 0, 0


def twitter(paths):
    for path in paths:
        for line in open_bytes(path):
            if not line.startswith(b"#"):
                at, item, size = line.decode().split(",")[:3]
                size = int(size)
                yield int(at) * 1000, int(item) % 2**64, size, size, 0, 0, 0, 0


def ids(paths):
    at_ms = 0
    for path in paths:
        data = open_bytes(path).read()
        for (item,) in struct.iter_unpack("<I", data[: len(data) // 4 * 4]):
            yield at_ms, item, 4096, 4096, 0, 0, 0, 0
            at_ms += 1000


LINE = re.compile(r'(\S+) \S+ \S+ \[([^\]]+)\] "GET (\S+) [^"]*" 200 (\d+)')


def clf(paths):
    rows, sizes = [], {}
    for path in paths:
        for line in open_bytes(path):
            found = LINE.match(line.decode(errors="replace"))
            if found:
                client, when, name, size = found.groups()
                at = datetime.strptime(when, "%d/%b/%Y:%H:%M:%S %z").timestamp()
                rows.append((int(at * 1000), client, name.split("?")[0], int(size)))
    rows.sort(key=lambda row: row[0])
    for at_ms, client, name, size in rows:
        sizes[name] = max(sizes.get(name, 0), size)
        directory, _, last = name.rpartition("/")
        who = number(client)
        kind = number(last.rpartition(".")[2])
        yield at_ms, number(name), size, sizes[name], who, number(directory), who, kind


FORMATS = {"swim": swim, "twitter": twitter, "ids": ids, "clf": clf}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in FORMATS:
        sys.exit(__doc__)
    write = sys.stdout.write
    write("firn-trace 1\n")
    for at_ms, item, size, whole, client, group, owner, kind in FORMATS[sys.argv[1]](sys.argv[2:]):
        write(f"{at_ms}\tR\t{item}\t{size}\t{whole}\t{client}\t{group}\t{owner}\t{kind}\n")


main()
