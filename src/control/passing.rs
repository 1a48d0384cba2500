//! A descriptor that comes along with a request: one end of a stream, for verbs whose content is no
//! lines of text. It travels with the first bytes of the request.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Sends a request, and a descriptor with it.
pub(super) fn send(
    mut stream: &UnixStream,
    request: &[u8],
    along: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let Some(along) = along else { return stream.write_all(request) };
    let descriptors = [along];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let sent = rustix::io::retry_on_intr(|| {
        let bytes = [IoSlice::new(request)];
        rustix::net::sendmsg(stream, &bytes, &mut control, SendFlags::NOSIGNAL)
    })?;
    stream.write_all(&request[sent..])
}

/// The reading side: bytes, and what came along with them. A second descriptor is closed.
pub(super) struct Receiving<'a> {
    stream: &'a UnixStream,
    passed: Option<OwnedFd>,
}

impl<'a> Receiving<'a> {
    pub(super) fn new(stream: &'a UnixStream) -> Self {
        Self { stream, passed: None }
    }

    /// What came along.
    pub(super) fn passed(self) -> Option<OwnedFd> {
        self.passed
    }
}

impl Read for Receiving<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::io::retry_on_intr(|| {
            let mut buffers = [IoSliceMut::new(buf)];
            rustix::net::recvmsg(
                self.stream.as_fd(),
                &mut buffers,
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                let mut descriptors = descriptors;
                self.passed = self.passed.take().or_else(|| descriptors.next());
            }
        }
        Ok(got.bytes)
    }
}
