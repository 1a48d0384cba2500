//! `firn tier pin`, `unpin` and `pins`. A pin is the attribute `user.firn.pin` of a file or
//! directory, set on the mount, so that the kernel checks who may.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use firn_tiering::{Clock, SystemClock};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::cli::heard::Heard;
use crate::cli::target;
use crate::control::placement::TierAct;
use crate::control::protocol::{Files, Verb};
use crate::failure::{self, EXIT_DONE, Explain};
use crate::mounts;
use crate::report;
use crate::report::tier::{PinLine, Pins};
use crate::units::Period;

/// The attribute.
const PIN: &str = "user.firn.pin";

/// A tier that files are pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PinTier {
    /// They stay in hot, and come back when they are not there
    Hot,
    /// They go to cold, and are not brought back by themselves
    Cold,
}

impl PinTier {
    const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }
}

/// Keep files in a tier, whatever the policy says
///
/// A directory is pinned for everything below it that has no pin of its own. The pin is the
/// attribute user.firn.pin, which programs can set as well.
#[derive(Debug, Args)]
pub(super) struct Pin {
    /// Where to
    tier: PinTier,
    /// Files and directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The pin goes by itself after this time; for hot only
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<Period>,
    /// Print one JSON object, whose field pins lists path, tier, source, from and until
    #[arg(long)]
    json: bool,
}

impl Pin {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        if self.lasts.is_some() && self.tier == PinTier::Cold {
            return Err(anyhow!("a pin to cold has no end"))
                .hint("leave --for out, or pin to hot")
                .wrong_usage();
        }
        let now = SystemClock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let until = self.lasts.map(|lasts| now.as_secs().saturating_add(lasts.0.as_secs()));
        let mut done = Pins::default();
        for path in &self.paths {
            let what = || format!("pinning {}", mounts::shown(path));
            target::locate(path).with_context(what)?;
            let value = match until {
                Some(secs) => format!("{} until {secs}", self.tier.name()),
                None => self.tier.name().to_owned(),
            };
            rustix::fs::lsetxattr(path, PIN, value.as_bytes(), XattrFlags::empty())
                .map_err(|error| refused(error, "only files and directories are pinned"))
                .with_context(what)?;
            done.pins.push(line(path, self.tier.name(), until));
        }
        tell(&done, self.json)
    }
}

/// A refusal of the kernel or of the daemon, with what may be meant.
fn refused(error: Errno, hint: &str) -> anyhow::Error {
    match error {
        Errno::PERM | Errno::ACCESS => {
            failure::hinted(error, format!("only who may write to it may; {hint}"))
        }
        Errno::INVAL | Errno::NOTSUP => {
            failure::hinted(error, "mount the volume with a version of firn that has pins")
        }
        _ => error.into(),
    }
}

fn line(path: &Path, tier: &str, until: Option<u64>) -> PinLine {
    PinLine {
        path: mounts::shown(path),
        tier: tier.to_owned(),
        source: "explicit".to_owned(),
        from: None,
        until: until.and_then(|secs| i64::try_from(secs).ok()).map(crate::utc::rfc3339),
    }
}

fn tell(pins: &Pins, json: bool) -> anyhow::Result<u8> {
    if json {
        report::print_json(pins)?;
    } else if !pins.pins.is_empty() {
        report::print(&pins.text())?;
    }
    Ok(EXIT_DONE)
}

/// Leave files to the policy again, or to what is pinned above them
#[derive(Debug, Args)]
pub(super) struct Unpin {
    /// Files and directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Everything below directories too
    #[arg(short, long)]
    recursive: bool,
    /// Print one JSON object, whose field pins lists what was pinned
    #[arg(long)]
    json: bool,
}

impl Unpin {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut done = Pins::default();
        for path in &self.paths {
            let what = || format!("unpinning {}", mounts::shown(path));
            target::locate(path).with_context(what)?;
            let mut left = vec![path.clone()];
            while let Some(path) = left.pop() {
                let what = || format!("unpinning {}", mounts::shown(&path));
                done.pins.extend(unpin(&path).with_context(what)?);
                if self.recursive && path.symlink_metadata().with_context(what)?.is_dir() {
                    for entry in fs::read_dir(&path).with_context(what)? {
                        let entry = entry.with_context(what)?;
                        // Snapshots, where they are listed, do not change.
                        if entry.file_name() != ".firn" {
                            left.push(entry.path());
                        }
                    }
                }
            }
        }
        tell(&done, self.json)
    }
}

/// Takes a pin away, and says which it was.
fn unpin(path: &Path) -> anyhow::Result<Option<PinLine>> {
    let mut value = [0; 64];
    let len = match rustix::fs::lgetxattr(path, PIN, &mut value[..]) {
        Ok(len) => len,
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8_lossy(value.get(..len).unwrap_or_default()).into_owned();
    match rustix::fs::lremovexattr(path, PIN) {
        Ok(()) => {}
        Err(Errno::NODATA) => return Ok(None),
        Err(error) => return Err(refused(error, "snapshots do not change")),
    }
    let (tier, until) = text.split_once(" until ").unwrap_or((&text, ""));
    Ok(Some(line(path, tier, until.parse().ok())))
}

/// List what is pinned
///
/// With --json, an object whose field pins lists path, tier, source, from and until.
#[derive(Debug, Args)]
pub(super) struct PinsVerb {
    /// At and below these files and directories
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl PinsVerb {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut found = Pins::default();
        for path in &self.paths {
            let target = target::find(path).context("looking for pins")?;
            let what = format!("looking for pins below {}", target.name);
            let files = Files { ino: target.ino, name: target.name, recursive: true };
            let mut heard = Heard::<PinLine>::new();
            let verb = Verb::Tier(TierAct::Pins(files));
            target.client.ask(verb, &mut heard).with_context(|| what)?;
            found.pins.append(&mut heard.items);
        }
        tell(&found, self.json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_who_may() {
        for errno in [Errno::PERM, Errno::ACCESS] {
            let failure = failure::Failure::new(&refused(errno, "snapshots do not change"));
            let hint = "only who may write to it may; snapshots do not change";
            assert_eq!(failure.hint.as_deref(), Some(hint));
        }
    }
}
