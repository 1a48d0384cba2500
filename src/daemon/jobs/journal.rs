//! The jobs that wait, on disk: a text file with a line for each job that came and each that ended.
//!
//! The first line is `firn-jobs 1`; then `add {job as JSON}` and `end NUMBER`. *Durability*: what
//! somebody asked for is synced before he hears of it; what the policy wants is not, nor that a job
//! ended: the policy plans again, and doing a job twice does no harm. *Crash*: a last line without its end is cut off. *Damage*: a line that makes
//! no sense ends the reading, and what is behind it is lost; the policy plans its part again. The
//! file is written anew, aside and renamed, once it holds much more than what waits.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use super::job::{Job, JobId, Work};
use super::queue::MOST_JOBS;

/// The first line.
const HEADER: &str = "firn-jobs 1";

/// Longest line in bytes.
const MAX_LINE: u64 = 256 << 10;

/// Most lines that are read.
const MAX_LINES: usize = 1 << 20;

/// Lines beyond twice what waits, from which on the file is written anew.
const SPARE_LINES: usize = 1024;

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    live: usize,
}

/// What a journal held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Jobs that had not ended.
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// The highest number.
    pub(super) last: JobId,
    /// Why the rest could not be read.
    pub(super) damage: Option<String>,
}

impl Journal {
    /// Opens or makes the file, and reads what it holds.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Found)> {
        let found = match File::open(path) {
            Ok(file) => read(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::default(),
            Err(error) => return Err(error),
        };
        let file = write_anew(path, found.jobs.values(), found.last)?;
        let live = found.jobs.len();
        Ok((Self { path: path.to_owned(), file, lines: live + 2, live }, found))
    }

    /// Remembers a job, durably where somebody asked for it.
    pub(super) fn add(&mut self, job: &Job) -> io::Result<()> {
        self.append(&add_line(job)?)?;
        self.live += 1;
        match job.work {
            Work::Stage => self.file.sync_data(),
            // Planned again where it is lost.
            Work::Promote | Work::CopyAhead | Work::Demote => Ok(()),
        }
    }

    /// Forgets a job. `waiting` are those that are left.
    pub(super) fn end<'a>(
        &mut self,
        id: JobId,
        last: JobId,
        waiting: impl Iterator<Item = &'a Job>,
    ) -> io::Result<()> {
        self.live = self.live.saturating_sub(1);
        if self.lines > 2 * self.live + SPARE_LINES {
            self.file = write_anew(&self.path, waiting, last)?;
            self.lines = self.live + 2;
            return Ok(());
        }
        self.append(&format!("end {id}\n"))
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        let written = self.file.write_all(line.as_bytes());
        match written {
            Ok(()) => self.lines += 1,
            // Half a line would swallow the next one.
            Err(_) => self.file.set_len(end)?,
        }
        written
    }
}

pub(super) fn add_line(job: &Job) -> io::Result<String> {
    Ok(format!("add {}\n", serde_json::to_string(job)?))
}

/// Writes a journal that holds just these jobs, and opens it to go on.
fn write_anew<'a>(
    path: &Path,
    jobs: impl Iterator<Item = &'a Job>,
    last: JobId,
) -> io::Result<File> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    let mut text = format!("{HEADER}\nend {last}\n");
    for job in jobs {
        text.push_str(&add_line(job)?);
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    OpenOptions::new().append(true).open(path)
}

pub(super) fn read(file: impl Read) -> io::Result<Found> {
    let mut reader = BufReader::new(file);
    let mut found = Found::default();
    let mut line = Vec::new();
    for number in 1..=MAX_LINES {
        line.clear();
        reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        let Some((b'\n', text)) = line.split_last() else {
            // The end, or a line that a crash has cut.
            if line.len() as u64 == MAX_LINE {
                found.damage = Some(format!("line {number} is too long"));
            }
            return Ok(found);
        };
        if let Err(reason) = take(&mut found, number, text) {
            found.damage = Some(format!("line {number}: {reason}"));
            return Ok(found);
        }
    }
    found.damage = Some(format!("more than {MAX_LINES} lines"));
    Ok(found)
}

fn take(found: &mut Found, number: usize, line: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    if number == 1 {
        let known = text == HEADER;
        return known.then_some(()).ok_or_else(|| format!("is not `{HEADER}`"));
    }
    match text.split_once(' ') {
        Some(("add", json)) => {
            let job: Job = serde_json::from_str(json).map_err(|error| error.to_string())?;
            if !job.is_sound() || found.jobs.len() >= MOST_JOBS {
                return Err("is no job".to_owned());
            }
            found.last = found.last.max(job.id);
            found.jobs.insert(job.id, job);
            Ok(())
        }
        Some(("end", id)) => {
            let id: JobId = id.parse().map_err(|_| "has no number".to_owned())?;
            found.last = found.last.max(id);
            found.jobs.remove(&id);
            Ok(())
        }
        _ => Err("says neither add nor end".to_owned()),
    }
}
