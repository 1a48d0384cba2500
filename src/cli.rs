//! The command line: one clap definition from which help, man pages and completions come, and one
//! module per verb. The program also answers to `mount.firn` and `umount.firn`, for `/etc/fstab`
//! and `mount(8)`.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::failure::{self, EXIT_USAGE};

mod bench;
mod check;
mod completions;
mod dataset;
mod explain;
mod heard;
mod init;
mod key;
mod man;
mod model;
mod mount;
mod mount_options;
mod names;
mod offline;
mod policy;
mod recover;
mod scrub;
mod snapshot;
mod status;
mod sync;
mod target;
mod tier;
mod trace;
mod umount;
mod unmounted;
mod verify;

/// A filesystem whose hot snow turns to cold ice: local speed, object-store capacity, verified
/// throughout.
#[derive(Debug, Parser)]
#[command(name = "firn", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
#[command(max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "Exit status: 0 done; 1 failed; 2 wrong usage; 3 the check ran and found \
damage it did not repair.\n\
Wherever a volume is expected, a volume directory, a mountpoint or any path below one will do.\n\
A dataset is written as the path of its root directory, a snapshot as that path with @name; on a \
volume that is not mounted, as <volume-dir>:/path@name.\n\
Sizes are written 64KiB or 2TiB, durations 90s, 15m or 7d.";

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Init),
    Mount(mount::Mount),
    Umount(umount::Umount),
    Sync(sync::Sync),
    Status(status::StatusVerb),
    Explain(explain::ExplainVerb),
    Dataset(dataset::Dataset),
    Snapshot(snapshot::Snapshot),
    Policy(policy::PolicyVerb),
    Tier(tier::Tier),
    Model(model::Model),
    Check(check::CheckVerb),
    Scrub(scrub::Scrub),
    Verify(verify::Verify),
    Recover(recover::Recover),
    Key(key::KeyVerb),
    Bench(bench::Bench),
    Completions(completions::Completions),
    Man(man::ManPages),
}

/// Runs the program and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let name = args.first().and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str);
    match name {
        Some("mount.firn" | "mount.fuse.firn") => parse_and_run(&args, mount::MountHelper::run),
        Some("umount.firn" | "umount.fuse.firn") => parse_and_run(&args, umount::UmountHelper::run),
        _ => parse_and_run(&args, run),
    }
}

fn parse_and_run<P: Parser>(
    args: &[OsString],
    run: impl FnOnce(P) -> anyhow::Result<u8>,
) -> ExitCode {
    match P::try_parse_from(args).map(run) {
        Err(error) => usage(&error),
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(error)) => failure::report(&error),
    }
}

/// Help and version are answers; everything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let code = if error.use_stderr() { EXIT_USAGE } else { failure::EXIT_DONE };
    ExitCode::from(code)
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    match cli.verb {
        Verb::Init(verb) => verb.run(),
        Verb::Mount(verb) => verb.run(),
        Verb::Umount(verb) => verb.run(),
        Verb::Sync(verb) => verb.run(),
        Verb::Status(verb) => verb.run(),
        Verb::Explain(verb) => verb.run(),
        Verb::Dataset(verb) => verb.run(),
        Verb::Snapshot(verb) => verb.run(),
        Verb::Policy(verb) => verb.run(),
        Verb::Tier(verb) => verb.run(),
        Verb::Model(verb) => verb.run(),
        Verb::Check(verb) => verb.run(),
        Verb::Scrub(verb) => verb.run(),
        Verb::Verify(verb) => verb.run(),
        Verb::Recover(verb) => verb.run(),
        Verb::Key(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
        Verb::Completions(verb) => verb.run(),
        Verb::Man(verb) => verb.run(),
    }
}

/// The whole definition, for help, man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The helpers of `mount(8)` and `umount(8)`, for manual pages.
pub fn helpers() -> [clap::Command; 2] {
    [mount::MountHelper::command(), umount::UmountHelper::command()]
}
