//! Reads through a mount of what lies in an S3 store only, counted in requests.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use firn_tests::Server;

use crate::harness::{Volume, noise};

const MIB: u64 = 1 << 20;

/// Length of the large file.
const LARGE: u64 = 32 * MIB;

/// Small files, which share blocks, and their length.
const SMALL: usize = 96;
const SMALL_LEN: usize = 20_000;

fn small(index: usize) -> String {
    format!("small/{index:03}")
}

/// A volume whose files lie in cold only, mounted anew.
fn frozen(server: &Server) -> Volume {
    let variables = server.variables();
    let envs: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut volume = Volume::with(&["--hot-capacity", "1GiB", "--cold", "s3://ice/reads"], &envs);
    std::fs::write(volume.path("large"), noise(1, LARGE as usize)).unwrap();
    std::fs::create_dir(volume.path("small")).unwrap();
    for index in 0..SMALL {
        std::fs::write(volume.path(&small(index)), noise(100 + index as u64, SMALL_LEN)).unwrap();
    }
    let root = volume.mountpoint.to_str().unwrap().to_owned();
    volume.run(&["tier", "archive", "-r", &root]);
    volume.run(&["tier", "release", "-r", &root]);
    let listing: serde_json::Value =
        serde_json::from_str(&volume.run(&["tier", "ls", "-r", "--json", &root])).unwrap();
    for file in listing["files"].as_array().unwrap().iter().filter(|f| f["kind"] == "file") {
        assert_eq!(file["state"], "cold", "{file}");
    }
    remount(&mut volume);
    volume
}

/// Nothing of it is in any memory afterwards.
fn remount(volume: &mut Volume) {
    volume.umount();
    volume.mount();
}

/// Ranged requests that the daemon has made.
fn requests(volume: &Volume) -> u64 {
    let status = volume.run(&["status", "--json", volume.mountpoint.to_str().unwrap()]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["counters"]["cold_requests"].as_u64().expect("status counts requests")
}

fn read_page(path: &Path, at: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    File::open(path).unwrap().read_exact_at(&mut page, at).unwrap();
    page
}

#[test]
fn a_page_here_and_there_is_one_request_each_also_after_a_remount() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).unwrap();
    let mut volume = frozen(&server);
    let content = noise(1, LARGE as usize);
    for round in 0..2 {
        let before = requests(&volume);
        // Each in a block of its own, and none behind the one before.
        for step in 0..24_u64 {
            let at = (step * 7 % 32) * MIB + (step * 37 % 256) * 4096;
            let page = read_page(&volume.path("large"), at);
            assert_eq!(page, content[at as usize..at as usize + 4096]);
        }
        assert_eq!(requests(&volume) - before, 24, "round {round}");
        remount(&mut volume);
    }
}

#[test]
fn a_small_file_that_shares_its_block_is_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).unwrap();
    let mut volume = frozen(&server);
    let before = requests(&volume);
    // Far enough apart to have no cell of their block in common.
    for index in (0..SMALL).step_by(8).rev() {
        let read = std::fs::read(volume.path(&small(index))).unwrap();
        assert_eq!(read, noise(100 + index as u64, SMALL_LEN));
    }
    assert_eq!(requests(&volume) - before, SMALL as u64 / 8);
    remount(&mut volume);
    let before = requests(&volume);
    for index in 0..SMALL {
        let read = std::fs::read(volume.path(&small(index))).unwrap();
        assert_eq!(read, noise(100 + index as u64, SMALL_LEN));
    }
    let count = requests(&volume) - before;
    assert!(count < SMALL as u64 / 2, "{count} requests for {SMALL} files side by side");
}

#[test]
fn a_file_read_through_takes_few_requests() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).unwrap();
    let volume = frozen(&server);
    let before = requests(&volume);
    assert!(std::fs::read(volume.path("large")).unwrap() == noise(1, LARGE as usize));
    let count = requests(&volume) - before;
    // They grow with the reader's way; none is for less than a block.
    assert!(count <= 48, "{count} requests for {LARGE} bytes");
    volume.run(&["tier", "stage", "--wait", volume.path("large").to_str().unwrap()]);
    assert!(std::fs::read(volume.path("large")).unwrap() == noise(1, LARGE as usize));
}
