//! `firn verify`: is what lies on a volume what an ordinary directory holds? Both are read through
//! the system, so that what is compared is what programs see. Or: is a snapshot what its digest says?
//! That is for the daemon to find out, from its records.

mod compare;
mod content;
mod sealed;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;

use super::names::SnapshotPath;
use crate::failure::{EXIT_DAMAGE, EXIT_DONE, Explain};
use crate::mounts;
use crate::report;
use compare::Comparison;

/// Verify a snapshot by its digest, or compare files with an ordinary directory
///
/// Of a snapshot, reads every record of what it shows anew, adds it up, and compares the root with
/// the one that was sealed in the background after the snapshot was taken; then computes its digest,
/// and those of all snapshots before it, from their roots. With --data, also reads every byte of
/// every file, from the cold tier where need be, and compares it with the file's BLAKE3. Note the
/// digest elsewhere, and nobody can change this snapshot or one before it unseen. The root is the
/// same for every copy of a snapshot that was sent, and for two snapshots that show the same. With
/// --json, one object with the fields snapshot, verified, pending, root, sealed_root, digest, inodes,
/// files, unread, unreadable, sent_root (that of a received snapshot where it was sent from), chain,
/// destroyed, chain_is_cut, found and flaws; each of these has what, path and detail, and each of
/// unreadable path and detail. A file that cannot be read is not proven, which says nothing of
/// whether it was altered; a cold tier that does not answer several times in a row is not waited for
/// any more.
///
/// Of two snapshots, does so for each, and then says whether their roots are the same, and so what
/// they show: names, inode numbers, owners, modes, times of modification, attributes and content.
/// They may be of different volumes. With --json, one object with the fields snapshots (two objects
/// as above) and equal (null where one of the roots is not known).
///
/// With --against, looks at every name on both sides, in order: type, size, target of a symbolic link, device, and
/// every byte of files of the same size. Owners, modes, times and attributes are not compared. A
/// line for each difference says extra (only on the volume), missing (only in the directory), kind,
/// size, target, device, content, or digest (where user.firn.blake3 is not that of the bytes). In
/// names, control characters and backslashes are written \0ooo, in octal. With --json, one object with
/// the fields path, against, equal, files, directories, bytes, unreadable, found and differences; each of
/// these has what, path and detail.
///
/// Exit status 3 says that something differs, 1 that something could not be read or that the snapshot
/// has no digest yet.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A directory or file on a mount, or a snapshot: <dataset>@<name>
    path: PathBuf,
    /// Another snapshot, to compare with the first
    #[arg(conflicts_with = "against")]
    other: Option<PathBuf>,
    /// The directory or file to compare it with; otherwise a snapshot is compared with its digest
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Read every byte of a snapshot's files, too
    #[arg(long, conflicts_with = "against")]
    data: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let Some(against) = &self.against else {
            return match &self.other {
                Some(other) => sealed::verify_both([&self.path, other], self.data, self.json),
                None => sealed::verify(&self.path, self.data, self.json),
            };
        };
        let (shown, other) = (mounts::shown(&self.path), mounts::shown(against));
        let what = || format!("comparing {shown} with {other}");
        let here = self.here().with_context(what)?;
        let there = found(against).with_context(what)?;
        let mut comparison = Comparison::new(here, there, !self.json);
        comparison.all().with_context(what)?;
        let mut report = comparison.finish();
        (report.path, report.against) = (shown.clone(), other.clone());
        if self.json {
            report::print_json(&report)?;
        } else {
            report::print(&report.text())?;
        }
        match (report.unreadable, report.found) {
            (0, 0) => Ok(EXIT_DONE),
            (0, _) => Ok(EXIT_DAMAGE),
            (unreadable, _) => bail!("{}: {unreadable} entries could not be read", what()),
        }
    }

    /// Where the files on the volume are.
    fn here(&self) -> anyhow::Result<PathBuf> {
        // A file may have such a name.
        if self.path.symlink_metadata().is_err()
            && let Ok(snapshot) = SnapshotPath::parse(&self.path)
        {
            let below = snapshot.dataset.join(".firn/snapshot").join(&snapshot.snapshot);
            return found(&below)
                .map_err(|_| anyhow!("there is no snapshot {}", snapshot.shown))
                .hint("`firn snapshot list` shows those of a mounted volume");
        }
        found(&self.path)
    }
}

/// The place that a path names, all links followed.
fn found(path: &Path) -> anyhow::Result<PathBuf> {
    let place = path.canonicalize().with_context(|| mounts::shown(path));
    place.hint("name a directory or file that exists, or a snapshot as <dataset>@<name>")
}
