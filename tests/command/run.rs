//! Runs the built `firn` and looks at what a user would see: output, notes and exit code.

use std::ffi::OsStr;
use std::process::{Command, Output};

/// What one run of the command gave.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn from(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Done, and silent on standard error.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self
    }

    /// Failed with this code, in one error that says all of `says`, and a hint.
    #[track_caller]
    pub fn refused(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.err.starts_with("firn: "), "{}", self.err);
        for part in says {
            assert!(self.err.contains(part), "`{part}` is missing in: {}", self.err);
        }
        assert!(self.err.contains("\nhint: "), "no hint in: {}", self.err);
        assert_eq!(self.out, "", "nothing goes to standard output");
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }
}

/// A command without the environment's object-store settings.
pub fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
    for (name, _) in std::env::vars_os() {
        let secret = ["AWS_", "GOOGLE_", "AZURE_"];
        if secret.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").args(args);
    command
}

/// Runs `firn` with these arguments.
pub fn firn<S: AsRef<OsStr>>(args: &[S]) -> Ran {
    Ran::from(&command(args).output().expect("firn was built"))
}
