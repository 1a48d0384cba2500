//! The daemon's log: `firn.log` in the volume directory, or standard error in the foreground.
//! `RUST_LOG` chooses what is logged, as everywhere in Rust. The file is bounded: at its limit it
//! becomes `firn.log.1`, replacing the one before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise: the libraries speak only of trouble.
const DEFAULT_FILTER: &str =
    "info,fjall=warn,lsm_tree=warn,sled=error,object_store=warn,reqwest=warn,hyper=warn,fuser=warn";

/// Bytes at which the log file is set aside.
const MAX_LOG_BYTES: u64 = 16 << 20;

fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER))
}

/// Logs to standard error from now on.
pub fn to_stderr() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init();
}

/// Logs to `path` from now on.
pub fn to_file(path: &Path) -> io::Result<()> {
    let log = LogFile::open(path)?;
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(false)
        .with_writer(Mutex::new(log))
        .try_init();
    Ok(())
}

/// Opens a log for appending. Others may not read it: it names files.
pub fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// A file that is set aside when it has grown to its limit.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    limit: u64,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open_append(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, len, limit: MAX_LOG_BYTES })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        fs::rename(&self.path, aside)?;
        self.file = open_append(&self.path)?;
        self.len = 0;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.len >= self.limit {
            // A log that cannot be set aside goes on growing: better long than lost.
            let _ = self.rotate();
        }
        let written = self.file.write(line)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_full_log_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("firn.log");
        let mut log = LogFile::open(&path).unwrap();
        log.limit = 10;
        for line in ["first line\n", "second line\n", "third line\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "third line\n");
        assert_eq!(fs::read_to_string(dir.path().join("firn.log.1")).unwrap(), "second line\n");
    }

    #[test]
    fn a_log_is_private_and_goes_on_where_it_ended() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("firn.log");
        LogFile::open(&path).unwrap().write_all(b"a\n").unwrap();
        let mut again = LogFile::open(&path).unwrap();
        assert_eq!(again.len, 2);
        again.write_all(b"b\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
