//! The namespace's part of `firn check --repair`: what is taken away is kept in a directory of the
//! volume, `lost+found-<time>`, with the report.
//!
//! *Crash*: a record is durable there before it goes from the namespace, so it is in one of both, or
//! in both.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use firn_mount::namespace::{
    CheckOptions as NamespaceOptions, Fate, Finding, Keeper, Repaired, Space,
};
use firn_mount::{FsError, FsResult};
use firn_tiering::Clock;

use super::{Checker, Damage};
use crate::mounts;
use crate::report::check::{Kind, Report};
use crate::report::names;
use crate::volume_dir::VolumeDir;
use crate::volume_dir::private::Umask;

/// How the names of such directories begin.
const PREFIX: &str = "lost+found-";

/// Directories of one second that are tried.
const ATTEMPTS: u32 = 100;

/// Where a repair puts what it takes away; made when there is something.
pub(in crate::cli) struct Aside {
    volume: PathBuf,
    name: String,
    open: Option<(PathBuf, BufWriter<File>)>,
    /// An earlier repair's is still there.
    has_older: bool,
}

impl Aside {
    pub(in crate::cli) fn new(volume: &VolumeDir, clock: &dyn Clock) -> anyhow::Result<Self> {
        let since = clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{PREFIX}{}", since.as_secs());
        let mut has_older = false;
        let what = || format!("listing {}", mounts::shown(volume.root()));
        for entry in fs::read_dir(volume.root()).with_context(what)? {
            let entry = entry.with_context(what)?;
            has_older |= entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        }
        Ok(Self { volume: volume.root().to_owned(), name, open: None, has_older })
    }

    fn file(&mut self) -> std::io::Result<&mut BufWriter<File>> {
        let opened = match self.open.take() {
            Some(opened) => opened,
            None => self.make()?,
        };
        Ok(&mut self.open.insert(opened).1)
    }

    fn make(&self) -> std::io::Result<(PathBuf, BufWriter<File>)> {
        let _private = Umask::private();
        let mut dir = self.volume.join(&self.name);
        for attempt in 1.. {
            match fs::create_dir(&dir) {
                Ok(()) => break,
                Err(error)
                    if error.kind() == std::io::ErrorKind::AlreadyExists && attempt < ATTEMPTS =>
                {
                    dir = self.volume.join(format!("{}.{attempt}", self.name));
                }
                Err(error) => return Err(error),
            }
        }
        let file = File::create_new(dir.join("records.jsonl"))?;
        for made in [&dir, &self.volume] {
            File::open(made)?.sync_all()?;
        }
        Ok((dir, BufWriter::new(file)))
    }

    fn write(&mut self, space: Space, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        let line = serde_json::json!({
            "space": space.name(),
            "key": hex(key),
            "value": hex(value),
        });
        writeln!(self.file()?, "{line}")
    }

    /// The directory, with the report in it, if anything was kept.
    pub(in crate::cli) fn finish(self, report: &Report) -> anyhow::Result<()> {
        let Some((dir, _)) = self.open else { return Ok(()) };
        let text = serde_json::to_vec_pretty(report).context("writing the report")?;
        let _private = Umask::private();
        let write = || -> std::io::Result<()> {
            let mut file = File::create_new(dir.join("report.json"))?;
            file.write_all(&text)?;
            file.sync_all()?;
            File::open(&dir)?.sync_all()
        };
        write().with_context(|| format!("writing the report into {}", dir.display()))
    }

    pub(in crate::cli) fn dir(&self) -> Option<&Path> {
        self.open.as_ref().map(|(dir, _)| &**dir)
    }

    fn failed(&self, error: std::io::Error) -> FsError {
        let place = self.volume.join(&self.name);
        FsError::io(format!("keep damaged records in {}", place.display()), error)
    }
}

impl Keeper for Aside {
    fn keep(&mut self, space: Space, key: &[u8], value: &[u8]) -> FsResult<()> {
        self.write(space, key, value).map_err(|error| self.failed(error))
    }

    fn sync(&mut self) -> FsResult<()> {
        let Some((_, file)) = &mut self.open else { return Ok(()) };
        let synced = file.flush().and_then(|()| file.get_ref().sync_data());
        synced.map_err(|error| self.failed(error))
    }

    fn has_kept(&self) -> bool {
        self.has_older || self.open.is_some()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Checker<'_> {
    /// Repairs the records of the namespace, as far as they have one right answer.
    pub(super) fn repair_namespace(&mut self, aside: &mut Aside) -> anyhow::Result<()> {
        self.doing("repairing the namespace", 0, 0);
        let done = self
            .namespace
            .repair(NamespaceOptions::default(), aside)
            .context("repairing the namespace")?;
        self.report.kept = aside.dir().map(mounts::shown);
        tell(&mut self.report, &done);
        Ok(())
    }
}

/// Damage to the namespace that is still there.
pub(in crate::cli) fn damage_of(finding: &Finding) -> Damage {
    Damage {
        part: "namespace".to_owned(),
        place: format!("inode {}", finding.ino.0),
        what: format!("{}: {}", finding.kind.name(), finding.detail),
        paths: vec![names::text(&finding.path)],
        repairable: false,
    }
}

/// Adds what a repair did.
pub(in crate::cli) fn tell(report: &mut Report, done: &Repaired) {
    for (kind, found) in &done.found {
        report.kind(kind.name()).found += found;
    }
    for (&(kind, fate), &count) in &done.counts {
        let kind: &mut Kind = report.kind(kind.name());
        match fate {
            Fate::Mended => kind.repaired += count,
            Fate::LostFound => kind.lost_found += count,
            Fate::Dropped => kind.dropped += count,
        }
    }
    for repair in &done.repairs {
        let what = format!("{}: {}", repair.kind.name(), repair.detail);
        let damage = Damage {
            part: "namespace".to_owned(),
            place: format!("inode {}", repair.ino.0),
            what,
            paths: vec![names::text(&repair.path)],
            repairable: true,
        };
        match repair.fate {
            Fate::Mended => report.repaired.push(damage),
            Fate::LostFound => report.lost_found.push(damage),
            Fate::Dropped => report.dropped.push(damage),
        }
    }
}
