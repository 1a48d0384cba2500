//! Starts the daemon in the background: the program runs itself again in a session of its own,
//! with a pipe for standard output on which it says `mounted` or why not. The parent returns when
//! it has heard. A parent that goes away first takes the mount with it: nobody waits for it then.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use super::logging;
use crate::failure::{Explain, Failure};
use crate::mounts;
use crate::volume_dir::VolumeDir;

/// Hidden option that asks for an answer on standard output.
pub const READY_OPTION: &str = "--answer-when-ready";

/// Longest answer.
const MAX_ANSWER: u64 = 64 << 10;

/// What the daemon says once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Mounted,
    Failed(Failure),
}

/// Mounts `volume` by a daemon in the background; returns when the mount answers.
pub fn start(volume: &VolumeDir, mountpoint: &Path, options: &str) -> anyhow::Result<()> {
    let (reader, writer) = io::pipe().context("making a pipe")?;
    let program = own_program();
    let mut command = Command::new(&program);
    command
        .args(arguments(volume.root(), mountpoint, options))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(writer))
        .stderr(stderr_of(volume));
    command.spawn().with_context(|| format!("starting {}", mounts::shown(&program)))?;
    // The parent's end of the pipe goes with the command, so that a dead daemon is an end of file.
    drop(command);
    let mut line = String::new();
    BufReader::new(reader.take(MAX_ANSWER)).read_line(&mut line).context("reading the answer")?;
    match serde_json::from_str(&line) {
        Ok(Answer::Mounted) => Ok(()),
        Ok(Answer::Failed(failure)) => Err(failure.into_error()),
        Err(_) => Err(anyhow!("the daemon ended before the mount was ready"))
            .hint(format!("its log is {}", mounts::shown(&volume.log_file()))),
    }
}

/// This program, also when its file was replaced meanwhile.
fn own_program() -> PathBuf {
    env::current_exe()
        .ok()
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// What is not logged in order, such as the last words of an allocator, goes to the log as well.
fn stderr_of(volume: &VolumeDir) -> Stdio {
    logging::open_append(&volume.log_file()).map_or_else(|_| Stdio::null(), Stdio::from)
}

/// The daemon's side: leaves the terminal's session.
pub fn leave_session() {
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "leads a session already");
    }
}

/// The daemon's side: says that the mount is ready. Fails when nobody waits any more.
pub fn answer_mounted() -> anyhow::Result<()> {
    say(&Answer::Mounted).context("whoever asked for the mount is gone")
}

/// The daemon's side: says why there is no mount.
pub fn answer_failed(error: &anyhow::Error) {
    if let Err(unheard) = say(&Answer::Failed(Failure::new(error))) {
        tracing::error!(%unheard, "nobody hears why the mount failed");
    }
}

/// Answers, and gives the pipe up so that whoever reads it to its end is released.
fn say(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = io::stdout();
    out.write_all(&line)?;
    out.flush()?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

fn arguments(volume: &Path, mountpoint: &Path, options: &str) -> Vec<OsString> {
    let words: [&OsStr; 8] = [
        "mount".as_ref(),
        "--foreground".as_ref(),
        READY_OPTION.as_ref(),
        "-o".as_ref(),
        options.as_ref(),
        "--".as_ref(),
        volume.as_os_str(),
        mountpoint.as_os_str(),
    ];
    words.iter().map(Into::into).collect()
}
