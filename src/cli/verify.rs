//! `firn verify`: is what lies on a volume what an ordinary directory holds? Both are read through
//! the system, so that what is compared is what programs see.

mod compare;
mod content;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;

use super::names::SnapshotPath;
use crate::failure::{EXIT_DAMAGE, EXIT_DONE, Explain};
use crate::mounts;
use crate::report;
use compare::Comparison;

/// Compare files on a volume with an ordinary directory
///
/// Looks at every name on both sides, in order: type, size, target of a symbolic link, device, and
/// every byte of files of the same size. Owners, modes, times and attributes are not compared. A
/// line for each difference says extra (only on the volume), missing (only in the directory), kind,
/// size, target, device, content, or digest (where user.firn.blake3 is not that of the bytes). In
/// names, control characters and backslashes are written \0ooo, in octal. Exit status 3 says that
/// something differs, 1 that something could not be read. With --json, one object with the fields
/// path, against, equal, files, directories, bytes, unreadable, found and differences; each of
/// these has what, path and detail.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A directory or file on a mount, or a snapshot: <dataset>@<name>
    path: PathBuf,
    /// The directory or file to compare it with
    #[arg(long, value_name = "DIR")]
    against: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let (shown, other) = (mounts::shown(&self.path), mounts::shown(&self.against));
        let what = || format!("comparing {shown} with {other}");
        let here = self.here().with_context(what)?;
        let there = found(&self.against).with_context(what)?;
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
