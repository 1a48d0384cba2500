//! The control socket: how the command talks to the daemon of a mounted volume.
//!
//! `<volume>/control.sock` is a Unix stream socket, mode 0600, and the daemon looks at the peer's
//! user besides. A connection carries one request and its answer, a JSON object per line:
//! the request, then any number of progress and item lines, then one `done` or `error`. Lines are
//! bounded, a request of another protocol version is refused with a hint. What is no text, a stream
//! of a snapshot, goes through a descriptor that comes along with the request.
//!
//! *Cancellation*: a client that goes away cancels what only it waits for; what was begun for the
//! volume (an unmount, a copy to cold) goes on. *Crash*: a socket without a listener is left over
//! from a dead daemon and is replaced by the next.

pub mod client;
mod passing;
pub mod placement;
pub mod protocol;
pub mod server;
pub mod tree;

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::thread::UnshareFlags;

/// Longest path that fits a socket address, with its final NUL.
const MAX_ADDRESS: usize = 107;

/// Runs `act` with a path to `socket` that fits a socket address, however deep the volume lies: from
/// its own directory, on a thread whose working directory is nobody else's. (`/proc/self/fd` would do
/// as well, but is closed to a process that must not be dumped.)
fn with_short_path<T: Send>(
    socket: &Path,
    act: impl FnOnce(&Path) -> io::Result<T> + Send,
) -> io::Result<T> {
    if socket.as_os_str().len() <= MAX_ADDRESS {
        return act(socket);
    }
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::open(dir)?;
    let within = || {
        // SAFETY: only what this thread knows of the file system is taken apart from the process;
        // descriptors and memory stay shared, so that whatever is opened here is valid everywhere.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::process::fchdir(&dir)?;
        act(Path::new(name))
    };
    let done = std::thread::scope(|scope| scope.spawn(within).join());
    done.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

#[cfg(test)]
mod tests;
