//! `firn tier stage`: bringing many files back. A list is asked for in requests of bounded length,
//! one after the other, so that it may be as long as it likes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use serde::de::DeserializeOwned;

use crate::cli::heard::Heard;
use crate::cli::target::{self, Located};
use crate::control::client::Client;
use crate::control::placement::{MAX_FILES, Staging, TierAct};
use crate::control::protocol::{Files, Verb};
use crate::failure::{self, EXIT_DONE, EXIT_FAILED, Explain};
use crate::mounts;
use crate::report;
use crate::report::files::{Absent, Moved};
use crate::units::{Period, rounded_bytes};
use crate::volume_dir::VolumeDir;

/// Bytes of names in one request.
const MAX_NAMES: usize = 512 << 10;

/// Longest path of a list in bytes.
const MAX_PATH: u64 = 64 << 10;

/// Bring files back to the hot tier
///
/// On a terminal a bar shows the rate and the time left. What a list names and is not there is told
/// and passed over, and the command fails in the end.
#[derive(Debug, Args)]
pub(super) struct Stage {
    /// Files, or directories with -r
    #[arg(required_unless_present = "from_list")]
    paths: Vec<PathBuf>,
    /// Everything below directories too
    #[arg(short, long)]
    recursive: bool,
    /// Take the paths from a file, one a line; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "paths")]
    from_list: Option<PathBuf>,
    /// The paths of the list are ended by null bytes, as `firn tier find -0` and `find -print0` do
    #[arg(short = '0', long)]
    null: bool,
    /// Return when they are there, and fail if not all of them still are in the end
    #[arg(long)]
    wait: bool,
    /// Keep them in hot for this time, whatever the policy says
    #[arg(long, value_name = "DURATION")]
    pin_for: Option<Period>,
    /// Print one JSON object: files, blocks, stored_bytes, saved_bytes, refused, reasons and, with
    /// --wait, absent (files and stored_bytes that are not in hot in the end)
    #[arg(long)]
    json: bool,
}

impl Stage {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        if self.null && self.from_list.is_none() {
            return Err(anyhow!("-0 says how a list is read, and there is none"))
                .hint("name one with --from-list")
                .wrong_usage();
        }
        let mut staged = Staged {
            stage: &self,
            batch: None,
            sent: Vec::new(),
            sum: Moved::default(),
            missing: 0,
        };
        match &self.from_list {
            None => {
                for path in &self.paths {
                    let found = target::locate(path).context("staging")?;
                    staged.add(found)?;
                }
            }
            Some(list) => {
                let input = open(list)?;
                for_each_path(input, self.null, |path| match path.and_then(target::locate) {
                    Ok(found) => staged.add(found),
                    Err(error) => {
                        staged.missing += 1;
                        report::note(&format!("firn: warning: staging: {}", failure::line(&error)));
                        Ok(())
                    }
                })?;
            }
        }
        staged.send()?;
        staged.look_again()?;
        let Staged { sum, missing, .. } = staged;
        if self.wait || self.json {
            super::tell(&sum, self.json, "brought to hot")?;
        } else {
            report::print(&format!("{} files: queued, `firn tier jobs` shows them", sum.files))?;
        }
        complete(&sum)?;
        Ok(if missing > 0 { EXIT_FAILED } else { EXIT_DONE })
    }
}

/// Refuses to call done what is not in hot.
fn complete(sum: &Moved) -> anyhow::Result<()> {
    let Absent { files, stored_bytes } = sum.absent;
    if files == 0 {
        return Ok(());
    }
    let (all, bytes) = (sum.files, rounded_bytes(stored_bytes));
    Err(anyhow!("{files} of {all} files are not wholly in hot in the end, {bytes} are missing"))
        .context("staging")
        .hint("hot has no room for all of it: stage less, or keep it there with --pin-for")
}

/// Files that are asked for together, and what came of those before.
struct Staged<'a> {
    stage: &'a Stage,
    batch: Option<Batch>,
    /// What was waited for and is looked at once more: what came last may have taken its room.
    sent: Vec<Batch>,
    sum: Moved,
    missing: u64,
}

struct Batch {
    volume: VolumeDir,
    files: Vec<Files>,
    name_bytes: usize,
}

impl Staged<'_> {
    fn add(&mut self, found: Located) -> anyhow::Result<()> {
        let Located { volume, ino, name } = found;
        let has_room = self.batch.as_ref().is_none_or(|batch| {
            batch.volume.root() == volume.root()
                && batch.files.len() < MAX_FILES
                && batch.name_bytes + name.len() <= MAX_NAMES
        });
        if !has_room {
            self.send()?;
        }
        let batch =
            self.batch.get_or_insert_with(|| Batch { volume, files: Vec::new(), name_bytes: 0 });
        batch.name_bytes += name.len();
        batch.files.push(Files { ino, name, recursive: self.stage.recursive });
        Ok(())
    }

    fn send(&mut self) -> anyhow::Result<()> {
        let Some(mut batch) = self.batch.take() else { return Ok(()) };
        let what = match batch.files.as_slice() {
            [one] => format!("staging {}", one.name),
            several => format!("staging {} files", several.len()),
        };
        let pin_for_s = self.stage.pin_for.map(|period| period.0.as_secs());
        let staging = Staging { files: batch.files.clone(), wait: self.stage.wait, pin_for_s };
        let moved = batch.ask::<Moved>(TierAct::Stage(staging)).with_context(|| what)?;
        moved.into_iter().for_each(|moved| self.sum.add(moved));
        if self.stage.wait {
            // Of a list of any length, the numbers are kept and not the names.
            batch.files.iter_mut().for_each(|files| files.name = String::new());
            self.sent.push(batch);
        }
        Ok(())
    }

    /// Finds out what of everything is not in hot now.
    fn look_again(&mut self) -> anyhow::Result<()> {
        for mut batch in std::mem::take(&mut self.sent) {
            let files = std::mem::take(&mut batch.files);
            let absent = batch.ask::<Absent>(TierAct::Absent { files });
            let absent = absent.context("looking again at what was staged")?;
            absent.into_iter().for_each(|absent| self.sum.absent.add(absent));
        }
        Ok(())
    }
}

impl Batch {
    fn ask<T: DeserializeOwned>(&self, act: TierAct) -> anyhow::Result<Vec<T>> {
        let mut heard = Heard::<T>::new();
        Client::connect(&self.volume)?.ask(Verb::Tier(act), &mut heard)?;
        Ok(std::mem::take(&mut heard.items))
    }
}

fn open(list: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if list == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(list).with_context(|| mounts::shown(list))?;
    Ok(Box::new(BufReader::new(file)))
}

/// Passes each path of a list on, or why a line is none; empty lines are passed over.
fn for_each_path(
    mut input: Box<dyn BufRead>,
    null: bool,
    mut each: impl FnMut(anyhow::Result<&Path>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let end = if null { 0 } else { b'\n' };
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let most = MAX_PATH + 1;
        input.by_ref().take(most).read_until(end, &mut line).context("reading the list")?;
        if line.is_empty() {
            break;
        }
        if line.last() == Some(&end) {
            line.pop();
        } else if line.len() as u64 == most {
            input.skip_until(end).context("reading the list")?;
            let name = if null { "path" } else { "line" };
            each(Err(anyhow!("{name} {number} of the list is longer than {MAX_PATH} bytes")))?;
            continue;
        }
        if !line.is_empty() {
            each(Ok(Path::new(OsStr::from_bytes(&line))))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn paths(list: &'static [u8], null: bool) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        for_each_path(Box::new(list), null, |path| {
            found.push(match path {
                Ok(path) => path.as_os_str().as_bytes().to_vec(),
                Err(error) => error.to_string().into_bytes(),
            });
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn a_list_is_read_line_by_line() {
        assert_eq!(paths(b"a\n\nb c\nlast", false).unwrap(), [&b"a"[..], b"b c", b"last"]);
        assert_eq!(paths(b"a\nb\0c\0", true).unwrap(), [&b"a\nb"[..], b"c"]);
        assert_eq!(paths(b"", false).unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_the_rest_is_read() {
        let longest = "x".repeat(MAX_PATH as usize);
        let list = format!("a\n{longest}{longest}y\n{longest}\nb\n{longest}x");
        let list: &'static [u8] = list.leak().as_bytes();
        let too_long =
            |number: u32| format!("line {number} of the list is longer than 65536 bytes");
        let found = paths(list, false).unwrap();
        let found: Vec<_> = found.iter().map(|path| String::from_utf8_lossy(path)).collect();
        assert_eq!(found, ["a", &too_long(2), &longest, "b", &too_long(5)]);
    }
}
