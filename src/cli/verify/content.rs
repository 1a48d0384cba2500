//! The bytes of two files, by their BLAKE3: what `b3sum` prints, and what a volume says of a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use blake3::{Hash, Hasher};
use rustix::fs::OFlags;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// Files of at least this length are read by two threads.
const LONG: u64 = 4 << 20;

/// What came of reading a file.
pub(super) type Found = io::Result<Hash>;

/// Reads two files; `progress` is told how many bytes of the first were read.
pub(super) fn digests(
    here: &Path,
    there: &Path,
    len: u64,
    progress: &mut dyn FnMut(u64),
) -> (Found, Found) {
    if len < LONG {
        return (digest(here, progress), digest(there, &mut |_| ()));
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(|| digest(there, &mut |_| ()));
        let first = digest(here, progress);
        let second = other.join();
        (first, second.unwrap_or_else(|_| Err(io::Error::other("reading panicked"))))
    })
}

fn digest(path: &Path, progress: &mut dyn FnMut(u64)) -> Found {
    let mut file = open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(len) => {
                hasher.update(&buffer[..len]);
                progress(len as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Opens what was a file a moment ago; never follows a link, and never waits for a writer.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// What a volume says of a file's content, if it says something.
pub(super) fn stored_digest(path: &Path) -> Option<Hash> {
    let mut value = [0; 2 * blake3::OUT_LEN];
    let len = rustix::fs::lgetxattr(path, "user.firn.blake3", &mut value[..]).ok()?;
    Hash::from_hex(&value[..len]).ok()
}
