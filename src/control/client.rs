//! The command's side of the control socket.

use std::io::{self, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;

use super::passing;
use super::protocol::{self, Answer, MAX_ANSWER, Progress, Request, VERSION, Verb};
use super::server::{self, Handler};
use crate::failure::{self, Explain};
use crate::mounts;
use crate::volume_dir::{VolumeDir, lock};

/// How long a daemon may say nothing at all. Work that takes longer says how far it is.
const SILENCE: Duration = Duration::from_secs(300);

/// As [`SILENCE`], where others are to be asked, too: longer than it takes to say that work goes on.
const SHORT_SILENCE: Duration = Duration::from_secs(8);

/// What happens along the way to an answer.
pub trait Listener {
    /// How far long work is.
    fn progress(&mut self, _progress: &Progress) {}
    /// Something went wrong that did not stop the rest.
    fn warning(&mut self, text: &str) {
        crate::report::note(&format!("firn: warning: {text}"));
    }
    /// One part of the answer.
    fn item(&mut self, item: serde_json::Value) -> anyhow::Result<()>;
}

/// Hears warnings only.
#[derive(Debug)]
pub struct Silent;

impl Listener for Silent {
    fn item(&mut self, _item: serde_json::Value) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A way to whoever has a volume open: its daemon, or this process.
pub struct Client {
    peer: Peer,
    name: String,
}

enum Peer {
    Daemon(UnixStream),
    Here(Arc<dyn Handler>),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the daemon that has `volume` open.
    pub fn connect(volume: &VolumeDir) -> anyhow::Result<Self> {
        let name = mounts::shown(volume.root());
        let socket = volume.control_socket();
        match super::with_short_path(&socket, |path| UnixStream::connect(path)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(SILENCE)).context("control socket")?;
                stream.set_write_timeout(Some(SILENCE)).context("control socket")?;
                Ok(Self { peer: Peer::Daemon(stream), name })
            }
            Err(error) => Err(explain_unreachable(volume, error)),
        }
    }

    /// A volume that this process has open itself: `handler` answers.
    pub fn here(volume: &VolumeDir, handler: Arc<dyn Handler>) -> Self {
        Self { peer: Peer::Here(handler), name: mounts::shown(volume.root()) }
    }

    /// As [`Client::connect`], for a daemon that is one of many: it must say something soon.
    pub fn connect_briefly(volume: &VolumeDir) -> anyhow::Result<Self> {
        let client = Self::connect(volume)?;
        if let Peer::Daemon(stream) = &client.peer {
            stream.set_read_timeout(Some(SHORT_SILENCE)).context("control socket")?;
        }
        Ok(client)
    }

    /// Whether `other` is connected to the daemon of the same volume.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Asks, and hears the answer to its end.
    pub fn ask(self, verb: Verb, listener: &mut dyn Listener) -> anyhow::Result<()> {
        self.ask_along(verb, None, listener)
    }

    /// As [`Client::ask`]; `along` is the end of a stream that goes with the request.
    pub fn ask_along(
        self,
        verb: Verb,
        along: Option<OwnedFd>,
        listener: &mut dyn Listener,
    ) -> anyhow::Result<()> {
        let Self { peer, name } = self;
        let request = Asking { verb, along };
        match peer {
            Peer::Daemon(stream) => {
                let daemon = || format!("daemon of volume {name}");
                request.of(stream, listener, &daemon)
            }
            Peer::Here(handler) => {
                let (stream, answering) = server::answer_here(handler).context("answering")?;
                let result = request.of(stream, listener, &|| format!("volume {name}"));
                // It has closed the volume when it ends, also when nobody listened any more.
                let ended = answering.join().map_err(|_| anyhow!("the thread that answers died"));
                result.and(ended)
            }
        }
    }

    /// Asks for what is answered with a single item.
    pub fn ask_one<T: DeserializeOwned>(self, verb: Verb) -> anyhow::Result<T> {
        struct One(Option<serde_json::Value>);
        impl Listener for One {
            fn item(&mut self, item: serde_json::Value) -> anyhow::Result<()> {
                self.0 = Some(item);
                Ok(())
            }
        }
        let name = self.name.clone();
        let mut one = One(None);
        self.ask(verb, &mut one)?;
        let item = one.0.ok_or_else(|| anyhow!("daemon of volume {name} answered nothing"))?;
        serde_json::from_value(item)
            .with_context(|| format!("answer of the daemon of volume {name}"))
    }
}

/// A request that is about to be made.
struct Asking {
    verb: Verb,
    along: Option<OwnedFd>,
}

impl Asking {
    /// Asks, and hears the answer to its end. `whose` says who answers.
    fn of(
        self,
        stream: UnixStream,
        listener: &mut dyn Listener,
        whose: &dyn Fn() -> String,
    ) -> anyhow::Result<()> {
        let request = protocol::to_line(&Request { version: VERSION, verb: self.verb })?;
        let along = self.along.as_ref().map(AsFd::as_fd);
        passing::send(&stream, &request, along).with_context(whose)?;
        // Only the other side has it now, so that its end is seen.
        drop(self.along);
        let mut reader = BufReader::new(stream);
        loop {
            let line = protocol::read_line::<Answer>(&mut reader, MAX_ANSWER);
            match line.map_err(|error| silence(&reader, error)).with_context(whose)? {
                Some(Answer::Progress(progress)) => listener.progress(&progress),
                Some(Answer::Warning(text)) => listener.warning(&text),
                Some(Answer::Item(item)) => listener.item(item)?,
                Some(Answer::Done) => return Ok(()),
                Some(Answer::Error(failure)) => return Err(failure.into_error()),
                None => {
                    return Err(anyhow!("ended before it had answered"))
                        .with_context(whose)
                        .hint("its log is firn.log in the volume directory");
                }
            }
        }
    }
}

/// Asks, and goes away before there is an answer.
#[cfg(test)]
pub(crate) fn ask_and_leave(stream: UnixStream, verb: Verb, along: OwnedFd) {
    let request = protocol::to_line(&Request { version: VERSION, verb }).expect("it is text");
    passing::send(&stream, &request, Some(along.as_fd())).expect("somebody answers");
    drop((stream, along));
}

fn silence(stream: &BufReader<UnixStream>, error: io::Error) -> anyhow::Error {
    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return error.into();
    }
    let patience = stream.get_ref().read_timeout().ok().flatten().unwrap_or_default();
    anyhow!("says nothing for {} s", patience.as_secs())
}

fn explain_unreachable(volume: &VolumeDir, error: io::Error) -> anyhow::Error {
    let name = mounts::shown(volume.root());
    let holder = lock::holder(volume).ok().flatten();
    let (what, hint) = match (error.kind(), holder) {
        (io::ErrorKind::PermissionDenied, _) => (
            anyhow::Error::new(error),
            "only root and the user who mounted the volume may control it".to_owned(),
        ),
        (_, Some(owner)) if owner.mountpoint.is_some() => (
            anyhow!("process {} on {} has it and does not answer", owner.pid, owner.host),
            format!("run the command on {}, or see firn.log in the volume directory", owner.host),
        ),
        (_, Some(owner)) => (
            anyhow!("is in use by `firn {}`, process {}", owner.verb, owner.pid),
            "wait until it has ended".to_owned(),
        ),
        (_, None) => {
            (anyhow!("is not mounted"), format!("mount it with `firn mount {name} <mountpoint>`"))
        }
    };
    failure::hinted(what.context(format!("volume {name}")), hint)
}
