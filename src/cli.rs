//! The command line: one clap definition from which help, man pages and completions come, and one
//! module per verb. The program also answers to `mount.firn` and `umount.firn`, for `/etc/fstab`
//! and `mount(8)`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::failure::{self, EXIT_USAGE};

mod completions;
mod init;
mod man;

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
Sizes are written 64KiB or 2TiB, durations 90s, 15m or 7d.";

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Init),
    Completions(completions::Completions),
    Man(man::ManPages),
}

/// Runs the program and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => failure::report(&error),
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
        Verb::Completions(verb) => verb.run(),
        Verb::Man(verb) => verb.run(),
    }
}

/// The whole definition, for help, man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}
