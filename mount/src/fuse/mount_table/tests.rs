#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const SAMPLE: &[u8] = b"\
22 1 0:21 / /proc rw,nosuid - proc proc rw\n\
25 1 254:1 / / rw,relatime shared:1 master:2 - ext4 /dev/vda1 rw,discard\n\
40 25 0:45 / /data rw,nosuid,nodev,relatime shared:9 - fuse.firn /srv/vol rw,user_id=1000,group_id=5\n\
41 25 0:46 / /data/a\\040b ro,relatime - fuse.firn /srv/other\\134vol ro,user_id=0\n\
garbage\n\
42 25 0:47 / /data rw - tmpfs none rw\n";

#[test]
fn fields_are_found_whatever_the_optional_ones() {
    let mounts = parse(SAMPLE);
    assert_eq!(mounts.len(), 5);
    assert_eq!(mounts[2].source, Path::new("/srv/vol"));
    assert!(mounts[2].is_firn() && !mounts[2].read_only);
    assert_eq!(mounts[2].device, "0:45");
    assert_eq!(mounts[3].mountpoint, Path::new("/data/a b"));
    assert_eq!(mounts[3].source, Path::new("/srv/other\\vol"));
    assert!(mounts[3].read_only);
    let owners = mounts.iter().map(|mount| mount.owner).collect::<Vec<_>>();
    assert_eq!(owners, [None, None, Some(1000), Some(0), None]);
}

#[test]
fn the_latest_mount_is_on_top() {
    let mounts = parse(SAMPLE);
    assert_eq!(mounted_at(&mounts, Path::new("/data")).unwrap().fs_type, "tmpfs");
    assert!(mounted_at(&mounts, Path::new("/data/x")).is_none());
}

#[test]
fn broken_escapes_stay_as_they_are() {
    assert_eq!(unescape(b"a\\04"), "a\\04");
    assert_eq!(unescape(b"a\\999b"), "a\\999b");
    assert_eq!(unescape(b"\\011\\012"), "\t\n");
}
