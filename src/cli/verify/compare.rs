//! Two trees, walked side by side in the order of names. Of each directory on the way the names
//! that are still to come are in memory, and nothing else.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::iter::Peekable;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use super::content;
use crate::control::protocol::Progress;
use crate::mounts;
use crate::report;
use crate::report::escape::escaped;
use crate::report::progress::Follower;
use crate::report::verify::{Difference, Report, What};

/// Differences that a report names.
const MAX_DIFFERENCES: usize = 10_000;

/// The way to snapshots, which a dataset may show at its root.
const CONTROL: &str = ".firn";

/// Two trees being compared.
pub(super) struct Comparison {
    here: PathBuf,
    there: PathBuf,
    /// Differences are printed as they are found, rather than kept.
    prints: bool,
    follower: Follower,
    total_bytes: u64,
    report: Report,
}

/// A directory on both sides: its path, and its names that are still to come.
struct Pair {
    path: PathBuf,
    here: Peekable<IntoIter<OsString>>,
    there: Peekable<IntoIter<OsString>>,
}

/// Where a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Here,
    There,
    Both,
}

impl Pair {
    fn next(&mut self) -> Option<(OsString, Side)> {
        let order = match (self.here.peek(), self.there.peek()) {
            (Some(here), Some(there)) => here.cmp(there),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => Some((self.here.next()?, Side::Here)),
            Ordering::Greater => Some((self.there.next()?, Side::There)),
            Ordering::Equal => {
                self.there.next();
                Some((self.here.next()?, Side::Both))
            }
        }
    }
}

impl Comparison {
    pub(super) fn new(here: PathBuf, there: PathBuf, prints: bool) -> Self {
        let (follower, report) = (Follower::new(), Report::default());
        Self { here, there, prints, follower, total_bytes: 0, report }
    }

    /// Compares everything. Fails when nobody takes what is printed.
    pub(super) fn all(&mut self) -> anyhow::Result<()> {
        if self.follower.is_shown() {
            self.total_bytes = bytes_below(&self.here);
        }
        let mut open: Vec<Pair> = self.entry(PathBuf::new())?.into_iter().collect();
        while let Some(pair) = open.last_mut() {
            let Some((name, side)) = pair.next() else {
                open.pop();
                continue;
            };
            let path = pair.path.join(&name);
            match side {
                Side::Both => open.extend(self.entry(path)?),
                Side::Here if name == CONTROL => {}
                Side::Here => self.lonely(What::Extra, &path)?,
                Side::There => self.lonely(What::Missing, &path)?,
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Report {
        let mut report = self.report;
        report.equal = report.found == 0 && report.unreadable == 0;
        report
    }

    /// Compares two entries of the same name; returns a pair of directories to go into.
    fn entry(&mut self, path: PathBuf) -> anyhow::Result<Option<Pair>> {
        let (here, there) = (below(&self.here, &path), below(&self.there, &path));
        let Some((left, right)) = self.read2(&here, &there, |at| at.symlink_metadata()) else {
            return Ok(None);
        };
        let (kind, other) = (left.file_type(), right.file_type());
        if kind_name(kind) != kind_name(other) {
            let detail = format!("{}, there {}", kind_name(kind), kind_name(other));
            self.note(What::Kind, &path, detail)?;
        } else if kind.is_dir() {
            return Ok(self.directory(path, (&here, &there)));
        } else if kind.is_file() {
            self.files(&path, (&here, &there), (&left, &right))?;
        } else if kind.is_symlink() {
            if let Some((to, other)) = self.read2(&here, &there, |at| fs::read_link(at))
                && to != other
            {
                let detail = format!("{}, there {}", mounts::shown(&to), mounts::shown(&other));
                self.note(What::Target, &path, detail)?;
            }
        } else if (kind.is_char_device() || kind.is_block_device()) && left.rdev() != right.rdev() {
            let detail = format!("{}, there {}", device(&left), device(&right));
            self.note(What::Device, &path, detail)?;
        }
        Ok(None)
    }

    fn directory(&mut self, path: PathBuf, (here, there): (&Path, &Path)) -> Option<Pair> {
        let (left, right) = self.read2(here, there, names_in)?;
        self.report.directories += 1;
        let (here, there) = (left.into_iter().peekable(), right.into_iter().peekable());
        Some(Pair { path, here, there })
    }

    fn files(
        &mut self,
        path: &Path,
        (here, there): (&Path, &Path),
        (left, right): (&Metadata, &Metadata),
    ) -> anyhow::Result<()> {
        if left.len() != right.len() {
            let detail = format!("{} bytes, there {}", left.len(), right.len());
            return self.note(What::Size, path, detail);
        }
        let stored = content::stored_digest(here);
        let before = self.report.bytes;
        let (found, other) = {
            let Self { follower, report, total_bytes, .. } = self;
            content::digests(here, there, left.len(), &mut |len| {
                report.bytes += len;
                follower.show_quietly(&Progress {
                    doing: "comparing files".to_owned(),
                    done_bytes: report.bytes,
                    total_bytes: (*total_bytes).max(report.bytes),
                });
            })
        };
        let (found, other) = match (found, other) {
            (Ok(found), Ok(other)) => (found, other),
            (found, other) => {
                self.report.bytes = before;
                found.err().into_iter().for_each(|error| self.unreadable(here, &error));
                other.err().into_iter().for_each(|error| self.unreadable(there, &error));
                return Ok(());
            }
        };
        self.report.files += 1;
        if found != other {
            self.note(What::Content, path, format!("BLAKE3 {found}, there {other}"))?;
        }
        // One that is another now was of content that has changed since.
        match stored
            .filter(|stored| *stored != found && content::stored_digest(here) == Some(*stored))
        {
            Some(stored) => {
                let detail = format!("user.firn.blake3 is {stored}, that of its bytes {found}");
                self.note(What::Digest, path, detail)
            }
            None => Ok(()),
        }
    }

    /// An entry that only one side has; what lies below it is not told.
    fn lonely(&mut self, what: What, path: &Path) -> anyhow::Result<()> {
        let root = if what == What::Extra { &self.here } else { &self.there };
        let kind = below(root, path).symlink_metadata().map(|of| kind_name(of.file_type()));
        let detail = format!("{}, only in {}", kind.unwrap_or("entry"), mounts::shown(root));
        self.note(what, path, detail)
    }

    fn note(&mut self, what: What, path: &Path, detail: String) -> anyhow::Result<()> {
        self.report.found += 1;
        let difference = Difference { what, path: mounts::shown(path), detail };
        if self.prints {
            return self.follower.aside(|| report::print(&difference.text()));
        }
        if self.report.differences.len() < MAX_DIFFERENCES {
            self.report.differences.push(difference);
        }
        Ok(())
    }

    /// Reads something of both sides; tells why where that fails.
    fn read2<T>(
        &mut self,
        here: &Path,
        there: &Path,
        read: impl Fn(&Path) -> io::Result<T>,
    ) -> Option<(T, T)> {
        let mut read = |at: &Path| read(at).map_err(|error| self.unreadable(at, &error)).ok();
        let (here, there) = (read(here), read(there));
        here.zip(there)
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.report.unreadable += 1;
        self.follower.note(&format!("firn: {}: {error}", escaped(&mounts::shown(path))));
    }
}

/// `path` below `root`, or `root` itself: a file has nothing below it.
fn below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Bytes of all files below a path, as far as they can be counted.
fn bytes_below(path: &Path) -> u64 {
    let mut bytes = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(found) = path.symlink_metadata() else { continue };
        if found.is_file() {
            bytes += found.len();
        } else if found.is_dir() && path.file_name() != Some(OsStr::new(CONTROL)) {
            let names = names_in(&path).unwrap_or_default();
            waiting.extend(names.into_iter().map(|name| path.join(name)));
        }
    }
    bytes
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_file() => "file",
        _ if kind.is_dir() => "directory",
        _ if kind.is_symlink() => "symlink",
        _ if kind.is_fifo() => "fifo",
        _ if kind.is_socket() => "socket",
        _ if kind.is_char_device() => "char-device",
        _ => "block-device",
    }
}

fn device(of: &Metadata) -> String {
    let number = of.rdev();
    format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_counted_and_the_rest_compared() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (dir.path().join("here"), dir.path().join("there"));
        for side in [&here, &there] {
            fs::create_dir(side).unwrap();
            fs::write(side.join("file"), "content").unwrap();
        }
        let mut comparison = Comparison::new(here.clone(), there.clone(), false);
        // It was listed, and is gone by now.
        assert!(comparison.entry(PathBuf::from("gone")).unwrap().is_none());
        comparison.all().unwrap();
        let report = comparison.finish();
        assert_eq!((report.unreadable, report.found, report.equal), (2, 0, false));
        assert_eq!((report.files, report.directories, report.bytes), (1, 1, 7));
    }

    #[test]
    fn names_are_merged_in_order() {
        let names = |names: &[&str]| names.iter().map(OsString::from).collect::<Vec<_>>();
        let (here, there) = (names(&["a", "c", "d"]), names(&["b", "c", "e"]));
        let (here, there) = (here.into_iter().peekable(), there.into_iter().peekable());
        let mut pair = Pair { path: PathBuf::new(), here, there };
        let merged: Vec<_> = std::iter::from_fn(|| pair.next()).collect();
        let sides = merged.iter().map(|(name, side)| (name.to_str().unwrap(), *side));
        let expected = [
            ("a", Side::Here),
            ("b", Side::There),
            ("c", Side::Both),
            ("d", Side::Here),
            ("e", Side::There),
        ];
        assert_eq!(sides.collect::<Vec<_>>(), expected);
    }
}
