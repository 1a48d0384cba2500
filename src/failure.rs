//! How a failure reaches a person: `firn: what: cause: ...`, then a `hint:` where one helps.
//! Inside the command errors are `anyhow`; hints and exit codes ride along as invisible layers
//! of the chain. `cli::main` is the only place that prints them.

use std::fmt;
use std::io;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::report::escape::visible;

/// Done.
pub const EXIT_DONE: u8 = 0;
/// Failed.
pub const EXIT_FAILED: u8 = 1;
/// Wrong usage.
pub const EXIT_USAGE: u8 = 2;
/// The check ran and found damage that it did not repair.
pub const EXIT_DAMAGE: u8 = 3;

/// What to try next. Shows nothing as part of the cause chain.
#[derive(Clone, Debug)]
struct Hint(String);

impl fmt::Display for Hint {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Marks an error as wrong usage (exit code 2). Shows nothing as part of the cause chain.
#[derive(Clone, Copy, Debug)]
struct Usage;

impl fmt::Display for Usage {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Adds hints and exit codes to results.
pub trait Explain<T> {
    /// Says what the user can do about it.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
    /// The user asked for something that makes no sense: exit code 2.
    fn wrong_usage(self) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Explain<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| hinted(error, hint))
    }

    fn wrong_usage(self) -> anyhow::Result<T> {
        self.map_err(wrong_usage)
    }
}

/// An error, with what the user can do about it.
pub fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    error.into().context(Hint(hint.into()))
}

/// An error, as one of wrong usage: exit code 2.
pub fn wrong_usage(error: impl Into<anyhow::Error>) -> anyhow::Error {
    error.into().context(Usage)
}

/// An error and its causes in one line, without what to do about it. `{:#}` would show hints and
/// exit codes as causes that say nothing.
pub fn line(error: &anyhow::Error) -> String {
    Failure::new(error).message
}

/// A failure in the form in which it is printed, and in which it crosses the readiness pipe and
/// the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `what: cause: cause`, without the program's name.
    pub message: String,
    /// What to try next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Exit code.
    pub code: u8,
}

impl Failure {
    /// A failure from its layers, in one line whatever names they hold.
    pub fn new(error: &anyhow::Error) -> Self {
        let mut parts: Vec<String> = Vec::new();
        for layer in error.chain().map(|layer| visible(layer.to_string().trim_end())) {
            let repeats = parts.last().is_some_and(|last| last.ends_with(&layer));
            if !layer.is_empty() && !repeats {
                parts.push(layer);
            }
        }
        let code = if error.downcast_ref::<Usage>().is_some() { EXIT_USAGE } else { EXIT_FAILED };
        Self {
            message: parts.join(": "),
            hint: error.downcast_ref::<Hint>().map(|hint| visible(&hint.0)),
            code,
        }
    }

    /// The same failure as an error again, on the other side of a pipe or socket.
    pub fn into_error(self) -> anyhow::Error {
        let mut error = anyhow::Error::msg(self.message);
        if let Some(hint) = self.hint {
            error = error.context(Hint(hint));
        }
        if self.code == EXIT_USAGE {
            error = error.context(Usage);
        }
        error
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "firn: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Prints `error` and says how the process ends. A reader that went away (`firn ... | head`) is
/// no failure.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let gone = error
        .chain()
        .filter_map(|layer| layer.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if gone {
        return ExitCode::from(EXIT_DONE);
    }
    let failure = Failure::new(error);
    failure.to_string().lines().for_each(crate::report::note);
    ExitCode::from(failure.code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn prints_the_chain_and_the_hint() {
        let error = Err::<(), _>(anyhow!("refused"))
            .hint("start the store")
            .context("cold tier s3://b")
            .unwrap_err();
        let text = Failure::new(&error).to_string();
        assert_eq!(text, "firn: cold tier s3://b: refused\nhint: start the store");
    }

    #[test]
    fn no_name_ends_a_line_or_speaks_to_the_terminal() {
        let error = Err::<(), _>(anyhow!("a\nfirn: b\u{1b}[31m"))
            .hint("remove c\r\nd\\")
            .context("listing")
            .unwrap_err();
        let failure = Failure::new(&error);
        let text = "firn: listing: a\\0012firn: b\\0033[31m\nhint: remove c\\0015\\0012d\\";
        assert_eq!(failure.to_string(), text);
        assert_eq!(Failure::new(&failure.into_error()).to_string(), text, "nor twice");
    }

    #[test]
    fn a_line_shows_no_hint_and_no_exit_code() {
        let error = Err::<(), _>(anyhow!("/etc is not ours")).hint("name another").wrong_usage();
        let error = error.context("staging").unwrap_err();
        assert_eq!(line(&error), "staging: /etc is not ours");
    }

    #[test]
    fn usage_is_exit_code_two_also_after_crossing_a_pipe() {
        let error = Err::<(), _>(anyhow!("bad option")).wrong_usage().hint("see -h").unwrap_err();
        let sent = serde_json::to_string(&Failure::new(&error)).unwrap();
        let failure: Failure = serde_json::from_str(&sent).unwrap();
        let again = Failure::new(&failure.clone().into_error());
        assert_eq!(again, failure);
        assert_eq!(again.code, EXIT_USAGE);
    }

    #[test]
    fn a_cause_that_repeats_its_parent_is_said_once() {
        let error = anyhow!("permission denied").context("opening: permission denied");
        assert_eq!(Failure::new(&error).message, "opening: permission denied");
    }
}
