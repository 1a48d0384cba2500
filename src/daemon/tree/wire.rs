//! The stream of a snapshot between the daemon and who asked for it. Reading and writing wait as
//! long as the asker does: they end with an error when its control connection closes or the mount
//! ends, and never wait longer than a moment without looking. The asker's own descriptors are
//! never touched, for this is one end of a socket pair that it pumps from or to.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firn_tiering::Clock;
use parking_lot::Mutex;

use super::REPEAT;
use crate::control::protocol::Progress;
use crate::control::server::Outbox;
use crate::daemon::transfers::Transfer;

/// How long a read or a write waits before it looks whether it should go on.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often the asker hears how far it is.
const SAY_EVERY: Duration = Duration::from_millis(200);

/// One end of a stream that somebody waits for.
pub(super) struct Wire<'a> {
    stream: UnixStream,
    asker: Asker<'a>,
}

/// Who waits, and what they heard last.
pub(super) struct Asker<'a> {
    transfer: &'a Transfer<'a>,
    clock: Arc<dyn Clock>,
    told: Mutex<Told<'a>>,
}

struct Told<'a> {
    out: &'a mut Outbox,
    progress: Progress,
    at: Instant,
}

impl<'a> Wire<'a> {
    /// The stream that came with the request behind `out`.
    pub(super) fn take(
        out: &'a mut Outbox,
        transfer: &'a Transfer<'a>,
        clock: &Arc<dyn Clock>,
        doing: &str,
    ) -> anyhow::Result<Self> {
        let stream = out.take_passed()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
        stream.set_write_timeout(Some(LOOK_EVERY))?;
        let progress = Progress { doing: doing.to_owned(), ..Progress::default() };
        let told = Mutex::new(Told { out, progress, at: clock.instant() });
        let asker = Asker { transfer, clock: Arc::clone(clock), told };
        Ok(Self { stream, asker })
    }

    /// The two sides apart: bytes, and who hears how far they are.
    pub(super) fn split(&self) -> (Bytes<'_, 'a>, &Asker<'a>) {
        (Bytes { stream: &self.stream, asker: &self.asker }, &self.asker)
    }
}

impl Asker<'_> {
    /// Says how far it is, now and then; `false` when it should end.
    pub(super) fn follow(&self, done_bytes: u64, total_bytes: u64) -> bool {
        let mut told = self.told.lock();
        told.progress.done_bytes = done_bytes;
        told.progress.total_bytes = total_bytes;
        self.say(&mut told, SAY_EVERY).is_ok()
    }

    /// Does something that may take long and says so by itself.
    pub(super) fn while_waiting<T>(&self, work: impl FnOnce(&mut Outbox) -> T) -> T {
        work(&mut *self.told.lock().out)
    }

    /// Fails when nobody waits any more.
    fn look(&self) -> io::Result<()> {
        self.say(&mut self.told.lock(), REPEAT)
    }

    fn say(&self, told: &mut Told<'_>, every: Duration) -> io::Result<()> {
        if self.transfer.is_ending() {
            return Err(io::Error::other("the volume is being unmounted"));
        }
        let now = self.clock.instant();
        if now.saturating_duration_since(told.at) >= every {
            told.at = now;
            let progress = told.progress.clone();
            told.out.progress(progress)?;
        }
        if told.out.is_gone() {
            return Err(io::Error::other("who asked for it is gone"));
        }
        Ok(())
    }
}

/// Reads and writes a stream as long as somebody waits for it.
pub(super) struct Bytes<'w, 'a> {
    stream: &'w UnixStream,
    asker: &'w Asker<'a>,
}

impl Bytes<'_, '_> {
    fn patiently<T>(&self, mut act: impl FnMut(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.asker.look()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Read for Bytes<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.read(buf))
    }
}

impl Write for Bytes<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
