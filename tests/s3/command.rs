//! The server as a process of its own, which can be killed and stopped: `firn-s3-server` for
//! scripts, and tests that start their own binary again.
//!
//! With `--faults FILE` it does what the [`Plan`] in that file says, and reads it again when it has
//! changed; what it took in it writes to `FILE.applied`, for whoever waits for that. A file that is
//! no plan is told of on standard error, and what held before goes on.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::{BUCKET, Faults, Plan, Server, StartError};

const USAGE: &str =
    "usage: firn-s3-server <directory> [<address:port>] [--faults <file>] [--log <file>]";

/// How often the file of faults is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the command line says.
#[derive(Debug, PartialEq)]
struct Arguments {
    root: PathBuf,
    address: SocketAddr,
    faults: Option<PathBuf>,
    log: Option<PathBuf>,
}

impl Arguments {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, StartError> {
        let (mut root, mut faults, mut log) = (None, None, None);
        let mut address: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--faults") => faults = Some(arguments.next().ok_or(USAGE)?.into()),
                Some("--log") => log = Some(arguments.next().ok_or(USAGE)?.into()),
                Some(option) if option.starts_with("--") => return Err(USAGE.into()),
                _ if root.is_none() => root = Some(argument.into()),
                Some(text) => address = text.parse()?,
                None => return Err(USAGE.into()),
            }
        }
        Ok(Self { root: root.ok_or(USAGE)?, address, faults, log })
    }
}

/// Serves until it is killed, having told the variables that a client needs to `out`, one
/// `NAME=value` a line. `arguments` are those after the program's name.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let Arguments { root, address, faults, log } = Arguments::parse(arguments)?;
    let server = Server::start_on(&root, address)?;
    if let Some(log) = log {
        server.faults().log_to(File::options().create(true).append(true).open(log)?);
    }
    for (name, value) in server.variables() {
        writeln!(out, "{name}={value}")?;
    }
    writeln!(out, "FIRN_TEST_BUCKET={BUCKET}")?;
    out.flush()?;
    match faults {
        Some(file) => follow(&file, server.faults()),
        None => server.join(),
    }
    Ok(())
}

/// Does what the file says, for ever.
fn follow(file: &std::path::Path, faults: &Faults) {
    let mut known = None;
    loop {
        if let Ok(text) = std::fs::read_to_string(file)
            && known.as_ref() != Some(&text)
        {
            match Plan::parse(&text) {
                Ok(plan) => {
                    faults.set(plan);
                    let mut applied = file.as_os_str().to_owned();
                    applied.push(".applied");
                    // Who waits for it sees that it does not come.
                    let _ = std::fs::write(applied, &text);
                }
                Err(error) => {
                    let _ = writeln!(std::io::stderr(), "{}: {error}", file.display());
                }
            }
            known = Some(text);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parse(text: &str) -> Result<Arguments, StartError> {
        Arguments::parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn arguments_in_any_order() {
        let parsed = parse("--faults f dir --log l 127.0.0.1:99").unwrap();
        assert_eq!(parsed.root, PathBuf::from("dir"));
        assert_eq!(parsed.address.port(), 99);
        assert_eq!(parsed.faults, Some("f".into()));
        assert_eq!(parsed.log, Some("l".into()));
        for bad in ["", "dir nowhere", "dir --faults", "dir --what"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
