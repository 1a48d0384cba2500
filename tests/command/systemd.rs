//! The units that ship are units: `systemd-analyze verify` has nothing to say about them.

use std::fs;
use std::path::Path;
use std::process::Command;

fn verified(name: &str, as_name: &str) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/systemd").join(name);
    let text = fs::read_to_string(shipped).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join(as_name);
    fs::write(&unit, text.replace("/usr/local/bin/firn", env!("CARGO_BIN_EXE_firn"))).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&unit)
        .output()
        .expect("the package systemd is installed by scripts/install-deps.sh");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(as_name), "{said}");
    text
}

#[test]
fn the_service_is_sound_and_unmounts_before_it_kills() {
    let text = verified("firn@.service", "firn@data.service");
    for line in [
        "After=network-online.target",
        "ExecStop=/usr/local/bin/firn umount ${MOUNTPOINT}",
        "KillMode=mixed",
        "LimitNOFILE=1048576",
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line} is missing");
    }
}

#[test]
fn the_mount_unit_is_sound() {
    verified("data.mount", "data.mount");
}
