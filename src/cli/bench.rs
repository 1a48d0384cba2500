//! `firn bench`: what a volume does on this machine, measured as a program would see it: through the
//! mount, in a directory of its own that is removed afterwards, whatever happens.
//!
//! Every row ends after its work or its time, whichever comes first, and counts what was done until
//! then. Half of the data compresses, half does not. Reads have the kernel's cache dropped first; the
//! daemon's own stays, as it would for a program.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use firn_tiering::tier::Jitter;
use firn_tiering::{Clock, SystemClock};
use rustix::fs::{Advice, fadvise};

use crate::control::protocol::Progress;
use crate::failure::{EXIT_DONE, Explain};
use crate::mounts;
use crate::report;
use crate::report::bench::{Report, Row};
use crate::report::progress::Follower;
use crate::units::{Size, rounded_bytes};
use crate::volume_dir;

/// Bytes of one write or read of the streams.
const CHUNK: usize = 1 << 20;

/// Bytes of a random read, of a small file and of what is made durable.
const SMALL: usize = 4096;

/// Small files.
const FILES: u64 = 2000;

/// Random reads at most.
const RANDOM_READS: u64 = 20_000;

/// Writes that are made durable.
const FSYNCS: usize = 200;

/// Longest time of a row.
const ROW_TIME: Duration = Duration::from_secs(5);

/// Show what a volume does on this machine
///
/// Writes and reads below the mountpoint, in a directory that is removed afterwards, for about
/// twenty seconds. With --json, one object with the fields volume, mountpoint, bytes and rows; each
/// row has work, value, unit and count.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// A mounted volume, or any path below its mountpoint
    volume: PathBuf,
    /// Bytes of the large file
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    size: Size,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let what = || format!("measuring {}", mounts::shown(&self.volume));
        let target = volume_dir::resolve(&self.volume).with_context(what)?;
        let mount = target
            .mount
            .ok_or_else(|| anyhow!("it is not mounted"))
            .hint("mount it first: what is measured is the mount")
            .with_context(what)?;
        let bytes = self.size.0.max(CHUNK as u64);
        check_room(&mount.mountpoint, bytes).with_context(what)?;
        let scratch = Scratch::make(&mount.mountpoint).with_context(what)?;
        let rows = measure(&scratch.0, bytes).with_context(what)?;
        scratch.remove().with_context(what)?;
        let report = Report {
            volume: mounts::shown(target.volume.root()),
            mountpoint: mounts::shown(&mount.mountpoint),
            bytes,
            rows,
        };
        match self.json {
            true => report::print_json(&report)?,
            false => report::print(&report.text())?,
        }
        Ok(EXIT_DONE)
    }
}

fn check_room(mountpoint: &Path, bytes: u64) -> anyhow::Result<()> {
    let stat = rustix::fs::statvfs(mountpoint).context("asking how much room there is")?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < 2 * bytes {
        return Err(anyhow!("{} are free", rounded_bytes(free)))
            .hint("give a smaller --size, or make room");
    }
    Ok(())
}

/// A directory on the mount that goes with this.
struct Scratch(PathBuf);

impl Scratch {
    fn make(mountpoint: &Path) -> anyhow::Result<Self> {
        let dir = mountpoint.join(format!(".firn-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("making {}", mounts::shown(&dir)))?;
        Ok(Self(dir))
    }

    fn remove(self) -> anyhow::Result<()> {
        let dir = self.0.clone();
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", mounts::shown(&dir)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After `remove` there is nothing; after a failure that one is told of.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// All rows, in an order in which each finds what it needs.
fn measure(dir: &Path, bytes: u64) -> anyhow::Result<Vec<Row>> {
    let mut follower = Follower::new();
    let mut data = Data::new();
    let large = dir.join("large");
    let mut rows = Vec::new();
    let mut say = |what: &str| {
        follower.show_quietly(&Progress { doing: what.to_owned(), ..Progress::default() });
    };
    say("writing a large file");
    let written = write_large(&large, bytes, &mut data).context("writing a large file")?;
    rows.push(written.mib_per_s("sequential write, made durable"));
    say("reading it");
    drop_cache(&large)?;
    rows.push(read_large(&large)?.mib_per_s("sequential read"));
    say("reading here and there");
    drop_cache(&large)?;
    rows.push(read_random(&large, &mut data)?.per_s("random read of 4 KiB"));
    say("working with small files");
    rows.extend(small_files(&dir.join("small"), &data)?);
    say("making small writes durable");
    rows.extend(fsyncs(&dir.join("log"), &data)?);
    Ok(rows)
}

/// What was done, and in which time.
struct Done {
    count: u64,
    bytes: u64,
    time: Duration,
}

impl Done {
    fn row(&self, work: &str, amount: f64, unit: &str) -> Row {
        let value = amount / self.time.as_secs_f64().max(1e-9);
        Row { work: work.to_owned(), value, unit: unit.to_owned(), count: self.count }
    }

    fn mib_per_s(&self, work: &str) -> Row {
        self.row(work, self.bytes as f64 / f64::from(1 << 20), "MiB/s")
    }

    fn per_s(&self, work: &str) -> Row {
        self.row(work, self.count as f64, "1/s")
    }
}

/// Does `act` for 0, 1, 2, ... as often as it says that there is more, or until the time is over.
fn timed(mut act: impl FnMut(u64) -> anyhow::Result<Option<usize>>) -> anyhow::Result<Done> {
    let start = SystemClock.instant();
    let mut done = Done { count: 0, bytes: 0, time: Duration::ZERO };
    while since(start) < ROW_TIME {
        let Some(bytes) = act(done.count)? else { break };
        done.count += 1;
        done.bytes += bytes as u64;
    }
    done.time = since(start);
    Ok(done)
}

fn since(start: Instant) -> Duration {
    SystemClock.instant().saturating_duration_since(start)
}

/// What is written: half of it compresses.
struct Data {
    random: Jitter,
    noise: Vec<u8>,
    letters: Vec<u8>,
}

impl Data {
    fn new() -> Self {
        let mut random = Jitter::seeded(1);
        let noise: Vec<u8> = (0..CHUNK / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        let letters = noise.iter().map(|byte| b"ACGT"[usize::from(byte & 3)]).collect();
        Self { random, noise, letters }
    }

    fn chunk(&mut self, number: u64) -> &[u8] {
        let chunk = if number.is_multiple_of(2) { &mut self.noise } else { &mut self.letters };
        // No two are the same.
        chunk[..8].copy_from_slice(&number.to_le_bytes());
        chunk
    }
}

fn write_large(path: &Path, bytes: u64, data: &mut Data) -> anyhow::Result<Done> {
    let mut file = File::create(path)?;
    let start = SystemClock.instant();
    let mut done = timed(|number| {
        if number * CHUNK as u64 >= bytes {
            return Ok(None);
        }
        file.write_all(data.chunk(number))?;
        Ok(Some(CHUNK))
    })?;
    file.sync_all()?;
    done.time = since(start);
    Ok(done)
}

/// The kernel forgets what it holds of a file.
fn drop_cache(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path).context("opening the large file")?;
    fadvise(&file, 0, None, Advice::DontNeed).context("dropping the kernel's cache")
}

fn read_large(path: &Path) -> anyhow::Result<Done> {
    let mut file = File::open(path).context("opening the large file")?;
    let mut buffer = vec![0; CHUNK];
    timed(|_| match file.read(&mut buffer).context("reading the large file")? {
        0 => Ok(None),
        bytes => Ok(Some(bytes)),
    })
}

fn read_random(path: &Path, data: &mut Data) -> anyhow::Result<Done> {
    let file = File::open(path).context("opening the large file")?;
    let places = (file.metadata()?.len() / SMALL as u64).max(1);
    let mut buffer = vec![0; SMALL];
    // Readahead would read what nobody wants.
    fadvise(&file, 0, None, Advice::Random).context("telling the kernel what comes")?;
    timed(|number| {
        if number == RANDOM_READS {
            return Ok(None);
        }
        let at = data.random.next_u64() % places * SMALL as u64;
        file.read_exact_at(&mut buffer, at).context("reading here and there")?;
        Ok(Some(SMALL))
    })
}

fn small_files(dir: &Path, data: &Data) -> anyhow::Result<[Row; 3]> {
    fs::create_dir(dir).context("making a directory")?;
    let path = |number: u64| dir.join(format!("f{number}"));
    let part = |number: u64| {
        let at = (number as usize * SMALL) % CHUNK;
        &data.noise[at..at + SMALL]
    };
    let made = timed(|number| {
        if number == FILES {
            return Ok(None);
        }
        fs::write(path(number), part(number)).context("writing small files")?;
        Ok(Some(SMALL))
    })?;
    let read = timed(|number| {
        if number == made.count {
            return Ok(None);
        }
        let bytes = fs::read(path(number)).context("reading small files")?;
        if bytes != part(number) {
            return Err(anyhow!("a small file reads back differently"));
        }
        Ok(Some(SMALL))
    })?;
    let gone = timed(|number| {
        if number == made.count {
            return Ok(None);
        }
        fs::remove_file(path(number)).context("removing small files")?;
        Ok(Some(0))
    })?;
    Ok([
        made.per_s("small files made"),
        read.per_s("small files read"),
        gone.per_s("small files removed"),
    ])
}

fn fsyncs(path: &Path, data: &Data) -> anyhow::Result<[Row; 2]> {
    let mut file = File::create(path).context("making a log")?;
    let mut times = Vec::with_capacity(FSYNCS);
    timed(|_| {
        if times.len() == FSYNCS {
            return Ok(None);
        }
        file.write_all(&data.noise[..SMALL]).context("writing a log")?;
        let start = SystemClock.instant();
        file.sync_all().context("making a log durable")?;
        times.push(since(start));
        Ok(Some(SMALL))
    })?;
    times.sort_unstable();
    let row = |work: &str, share: usize| {
        let at = (times.len() * share / 100).min(times.len().saturating_sub(1));
        let value = times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        Row { work: work.to_owned(), value, unit: "ms".to_owned(), count: times.len() as u64 }
    };
    Ok([row("fsync after 4 KiB, median", 50), row("fsync after 4 KiB, 99th percentile", 99)])
}
