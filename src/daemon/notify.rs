//! Tells systemd (`Type=notify`) that the mount is ready or ending. Without systemd it does
//! nothing; a message that does not arrive is systemd's time-out to handle.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The mount answers.
pub(super) fn ready() {
    send("READY=1");
}

/// The mount is ending.
pub(super) fn stopping() {
    send("STOPPING=1");
}

fn send(message: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let sent = address(name.as_bytes()).and_then(|address| {
        UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
        Ok(())
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "telling systemd {message}");
    }
}

/// A path, or a name behind `@` in the kernel's abstract namespace.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
    }
}
