//! The daemon's memory stays bounded, whatever passes through it.

use crate::harness::{Volume, shell};

const BUDGET_MIB: u64 = 512;

#[test]
fn memory_stays_bounded_after_many_files_and_one_large() {
    let volume = Volume::mounted();
    shell(
        r#"python3 - "$1" <<'PY'
import os, sys
top = sys.argv[1]
for d in range(100):
    os.mkdir(f"{top}/d{d}")
    for f in range(1000):
        with open(f"{top}/d{d}/f{f}", "wb") as out:
            out.write(b"%d/%d " % (d, f) * 40)
PY
        python3 - "$1/large" <<'PY'
import os, sys
half = os.urandom(1 << 19)
with open(sys.argv[1], "wb", buffering=0) as out:
    for i in range(4096):
        out.write(half + i.to_bytes(8, "little") * (1 << 16))
PY
        "#,
        &[&volume.mountpoint],
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", volume.pid())).unwrap();
    let peak_kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap();
    assert!(
        peak_kib / 1024 <= BUDGET_MIB + 200,
        "the daemon took {} MiB of a budget of {BUDGET_MIB} MiB",
        peak_kib / 1024
    );
}
