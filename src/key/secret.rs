//! Asking the owner's file, environment or program for the secret. What was read is wiped when it is
//! dropped, and appears in no message; a program is told neither this secret nor another.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use firn_tiering::crypt::{MAX_SECRET_LEN, Secret};

use crate::config::KeySource;
use crate::failure::Explain;

/// How long a program may take: somebody may have to touch a token.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may stay when it has said everything.
const GRACE: Duration = Duration::from_secs(5);

/// The secret that `source` tells. `hidden` are variables that a program must not see.
pub(super) fn read(source: &KeySource, hidden: &[&str]) -> anyhow::Result<Secret> {
    let bytes = match source {
        KeySource::File(path) => File::open(path).map_err(anyhow::Error::from).and_then(of_file),
        KeySource::Env(name) => std::env::var_os(name)
            .map(OsStringExt::into_vec)
            .ok_or_else(|| anyhow!("it is not set")),
        KeySource::Command(words) => of_command(words, hidden),
    };
    bytes.and_then(|bytes| Ok(Secret::new(bytes)?)).with_context(|| source.to_string()).hint(
        "the key is 32 bytes or 64 hexadecimal digits, or a passphrase if it was made with one",
    )
}

fn of_file(file: File) -> anyhow::Result<Vec<u8>> {
    let meta = file.metadata()?;
    if meta.is_file() && meta.permissions().mode() & 0o077 != 0 {
        tracing::warn!("the key file can be read by others than its owner");
    }
    Ok(at_most(file)?)
}

/// All of it, or one byte more than a secret may have. Grows nowhere, so that no part stays behind.
fn at_most(from: impl Read) -> io::Result<Vec<u8>> {
    let most = MAX_SECRET_LEN + 1;
    let mut bytes = Vec::with_capacity(most + 64);
    from.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn of_command(words: &[String], hidden: &[&str]) -> anyhow::Result<Vec<u8>> {
    let (program, arguments) = words.split_first().context("it is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    hidden.iter().for_each(|name| {
        command.env_remove(name);
    });
    let mut child = command.spawn()?;
    let result = hear(&mut child);
    if result.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn hear(child: &mut Child) -> anyhow::Result<Vec<u8>> {
    let stdout = child.stdout.take().context("it has no output")?;
    let (say, heard) = mpsc::channel();
    let thread = std::thread::Builder::new().name("firn-key".into());
    thread.spawn(move || say.send(at_most(stdout))).context("starting a thread")?;
    let bytes = heard
        .recv_timeout(PATIENCE)
        .map_err(|_| anyhow!("it said nothing for {} s", PATIENCE.as_secs()))??;
    let pause = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(bytes),
            Some(status) => return Err(anyhow!("it ended with {status}")),
            None if waited >= GRACE => return Err(anyhow!("it does not end")),
            None => std::thread::sleep(pause),
        }
        waited += pause;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn refused(source: &KeySource) -> String {
        crate::failure::line(&read(source, &[]).unwrap_err())
    }

    #[test]
    fn files_and_programs_are_read_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "a secret").unwrap();
        read(&KeySource::File(path.clone()), &[]).unwrap();
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert!(refused(&KeySource::File(path.clone())).contains("longer than 4096"));
        std::fs::write(&path, "").unwrap();
        assert!(refused(&KeySource::File(path)).contains("it is empty"));
        assert!(refused(&KeySource::File("/nonexistent/key".into())).contains("/nonexistent/key"));
        assert!(refused(&KeySource::Env("FIRN_NO_SUCH_KEY".into())).contains("it is not set"));
        let shell = |line: &str| KeySource::shell(line.to_owned());
        read(&shell("echo a secret"), &[]).unwrap();
        let failed = refused(&shell("echo hunter2; exit 3"));
        assert!(failed.contains("exit status: 3") && !failed.contains("hunter2"), "{failed}");
        // An endless answer is cut off.
        refused(&shell("yes"));
        assert!(
            refused(&KeySource::Command(vec!["/nonexistent/x".into()])).contains("nonexistent")
        );
    }

    #[test]
    fn a_program_does_not_see_what_is_hidden() {
        let shown =
            KeySource::shell("test -n \"$CARGO_MANIFEST_DIR\" && echo it is seen".to_owned());
        read(&shown, &[]).unwrap();
        assert!(read(&shown, &["CARGO_MANIFEST_DIR"]).is_err());
    }
}
