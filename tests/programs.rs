//! Programs that were never told about Firn.

use crate::harness::{Volume, now, shell};
use std::time::Duration;

#[test]
fn a_git_clone_passes_fsck() {
    let volume = Volume::mounted();
    let origin = volume.scratch.path().join("origin");
    shell(
        r#"git init -q "$1"; cd "$1"
        cp -r /usr/include/linux headers; git add -A
        git -c user.name=t -c user.email=t@example.org commit -qm one
        for i in $(seq 20); do echo $i >> headers/changed; git add -A
            git -c user.name=t -c user.email=t@example.org commit -qm $i; done
        git clone -q --no-local "$1" "$2"; cd "$2"
        git fsck --full --strict; test -z "$(git status --porcelain)"; git gc -q; git fsck --full"#,
        &[&origin, &volume.path("clone")],
    );
}

#[test]
fn sqlite_keeps_committed_rows_through_kill() {
    for journal in ["wal", "delete"] {
        let mut volume = Volume::mounted();
        let acknowledged = volume.scratch.path().join("acknowledged");
        let mut writer = std::process::Command::new("bash")
            .args([
                "-c",
                r#"sqlite3 "$1" "pragma journal_mode=$3; pragma synchronous=full; create table t(i integer primary key, d text);" > /dev/null || exit 3
                for i in $(seq 100000); do
                    sqlite3 "$1" "pragma synchronous=full; insert into t values($i, hex(randomblob(400)));" > /dev/null 2>&1 || exit 0
                    echo $i >> "$2"
                done"#,
                "writer",
            ])
            .arg(volume.path("rows.db"))
            .arg(&acknowledged)
            .arg(journal)
            .spawn()
            .unwrap();
        let start = now();
        let rows = || std::fs::read_to_string(&acknowledged).map_or(0, |text| text.lines().count());
        while rows() < 30 {
            assert!(start.elapsed() < Duration::from_secs(60), "{journal}: no progress");
            std::thread::sleep(Duration::from_millis(20));
        }
        volume.kill();
        assert!(writer.wait().unwrap().success(), "{journal}: the writer could not start");
        let promised = rows();
        volume.mount();
        let kept = shell(
            r#"test "$(sqlite3 "$1" 'pragma integrity_check')" = ok; sqlite3 "$1" "select count(*) from t where i <= $2""#,
            &[&volume.path("rows.db"), std::path::Path::new(&promised.to_string())],
        );
        assert_eq!(kept.trim(), promised.to_string(), "{journal}");
    }
}

#[test]
fn fio_verifies_random_reads_and_writes() {
    let volume = Volume::mounted();
    for direct in ["0", "1"] {
        shell(
            r#"fio --name=v --directory="$1" --rw=randrw --bs=16k --size=96m --verify=crc32c --numjobs=2 \
                --ioengine=psync --fsync=64 --verify_fatal=1 --verify_state_save=0 --direct="$2" --randseed=7 --output="$3""#,
            &[&volume.mountpoint, direct.as_ref(), &volume.scratch.path().join("fio.txt")],
        );
    }
}

#[test]
fn sparse_copies_see_data_that_was_never_synced() {
    let volume = Volume::mounted();
    shell(
        r#"cd "$1"; dd if=/dev/urandom of=a bs=64k count=16 status=none; dd if=/dev/urandom of=a bs=64k count=4 seek=100 conv=notrunc status=none
        cp --sparse=always a b; cmp a b; cp --reflink=auto a c; cmp a c; cp --sparse=auto a d; cmp a d
        tar -cSf t.tar a; mkdir x; tar -xf t.tar -C x; cmp a x/a"#,
        &[&volume.mountpoint],
    );
}
