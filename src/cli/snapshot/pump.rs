//! Streams between this process's own descriptors, or an object, and the socket pair whose other end
//! the daemon has. A thread pumps while the answer is heard.

use std::fs::File;
use std::io::{self, Chain, Cursor, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use firn_tiering::crypt::{Derivation, OpenedReader, STREAM_MAGIC, SealedWriter, Secret};
use firn_tiering::tier::{ObjectReader, ObjectWriter};

use crate::config::ColdUrl;
use crate::failure::Explain;
use crate::mounts;

/// Bytes pumped at once.
const PIECE: usize = 256 << 10;

/// Where a stream goes in the end.
pub(in crate::cli) enum Sink {
    Output(File),
    File(File),
    Object(Box<ObjectWriter>),
    Sealed(Box<SealedWriter<Sink>>),
}

impl Sink {
    /// Standard output.
    pub(in crate::cli) fn output() -> anyhow::Result<Self> {
        let own = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
        Ok(Self::Output(File::from(own)))
    }

    /// A file, in place of what is there.
    pub(in crate::cli) fn file(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::File(File::create(path).with_context(|| mounts::shown(path))?))
    }

    /// A new object.
    pub(super) fn object(url: &str) -> anyhow::Result<Self> {
        let url = parse(url)?;
        let writer = explain(ObjectWriter::create(url.as_str()), &url)?;
        Ok(Self::Object(Box::new(writer)))
    }

    /// The same, encrypted.
    pub(super) fn sealed(self, secret: &Secret, derivation: Derivation) -> anyhow::Result<Self> {
        Ok(Self::Sealed(Box::new(SealedWriter::begin(self, secret, derivation)?)))
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Output(file) | Self::File(file) => file,
            Self::Object(writer) => writer,
            Self::Sealed(writer) => writer,
        }
    }

    /// Whether its reader may take its time.
    fn may_stall(&self) -> bool {
        match self {
            Self::Output(_) => true,
            Self::File(_) | Self::Object(_) => false,
            Self::Sealed(writer) => writer.inner().may_stall(),
        }
    }

    /// Makes an object appear; what was written to standard output is there.
    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Output(_) => Ok(()),
            Self::File(file) => file.sync_all().context("writing the file"),
            Self::Object(writer) => writer
                .finish()
                .map(drop)
                .map_err(anyhow::Error::new)
                .context("completing the object"),
            Self::Sealed(writer) => writer.finish()?.finish(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Output(_) => "writing to standard output",
            Self::File(_) => "writing the file",
            Self::Object(_) => "writing the object",
            Self::Sealed(writer) => writer.inner().name(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

/// Where a stream comes from.
pub(super) enum Source {
    Input(File),
    Object(Box<ObjectReader>),
    /// Behind its first bytes, which were looked at.
    Begun(Box<Chain<Cursor<Vec<u8>>, Source>>),
    Opened(Box<OpenedReader<Source>>),
}

impl Source {
    /// Standard input.
    pub(super) fn input() -> anyhow::Result<Self> {
        let own = io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
        Ok(Self::Input(File::from(own)))
    }

    /// An object.
    pub(super) fn object(url: &str) -> anyhow::Result<Self> {
        let url = parse(url)?;
        let reader = explain(ObjectReader::open(url.as_str()), &url)?;
        Ok(Self::Object(Box::new(reader)))
    }

    /// The stream as the daemon must see it: opened by `key`, which reads the secret, if it is
    /// encrypted.
    pub(super) fn opened(
        mut self,
        key: Option<impl FnOnce() -> anyhow::Result<Secret>>,
    ) -> anyhow::Result<Self> {
        let mut head = Vec::new();
        let most = STREAM_MAGIC.len() as u64;
        (&mut self).take(most).read_to_end(&mut head).context(self.name())?;
        let is_encrypted = head == STREAM_MAGIC;
        let whole = Self::Begun(Box::new(Cursor::new(head).chain(self)));
        match (is_encrypted, key) {
            (false, None) => Ok(whole),
            (true, None) => Err(anyhow!("the stream is encrypted, and no key was given"))
                .hint("say where the key is kept with --key-file, --key-env or --key-command"),
            (false, Some(_)) => Err(anyhow!("a key was given, and the stream is not encrypted"))
                .hint("leave the key away, if the stream comes from where you think it does"),
            (true, Some(key)) => match OpenedReader::begin(whole, &key()?)? {
                Some(reader) => Ok(Self::Opened(Box::new(reader))),
                None => Err(anyhow!("the key does not open this stream"))
                    .hint("give the key that it was sent with"),
            },
        }
    }

    fn reader(&mut self) -> &mut dyn Read {
        match self {
            Self::Input(file) => file,
            Self::Object(reader) => reader,
            Self::Begun(reader) => reader,
            Self::Opened(reader) => reader,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Input(_) => "reading from standard input",
            Self::Object(_) => "reading the object",
            Self::Begun(_) | Self::Opened(_) => "reading the stream",
        }
    }
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader().read(buf)
    }
}

fn parse(url: &str) -> anyhow::Result<ColdUrl> {
    let parsed = url.parse::<ColdUrl>().map_err(anyhow::Error::new);
    parsed
        .hint("write it as file:///path, s3://bucket/name, gs://bucket/name or az://container/name")
        .wrong_usage()
}

fn explain<T>(result: firn_tiering::Result<T>, url: &ColdUrl) -> anyhow::Result<T> {
    let hint = match &result {
        Ok(_) => String::new(),
        Err(firn_tiering::Error::Exists(_)) => {
            "choose another name; what is there is never replaced".to_owned()
        }
        Err(error) => error.hint().map_or_else(
            || "check the URL, the credentials in the environment, and the network".to_owned(),
            ToOwned::to_owned,
        ),
    };
    result.map_err(anyhow::Error::new).with_context(|| url.to_string()).hint(hint)
}

/// Has `ask` write a stream into the descriptor that it is given, and passes it on. What was passed
/// on counts only when both ended well.
pub(in crate::cli) fn out(
    mut sink: Sink,
    ask: impl FnOnce(OwnedFd) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut ours, theirs) = UnixStream::pair().context("a pair of sockets")?;
    let (name, may_stall) = (sink.name(), sink.may_stall());
    let pumping = spawn(move || {
        let copied = copy(&mut ours, sink.writer());
        // The other side must not wait for a reader that is gone.
        let _ = ours.shutdown(Shutdown::Both);
        copied.map(|()| sink).map_err(|(Broken::Reading(error) | Broken::Writing(error))| error)
    })?;
    let answered = ask(theirs.into());
    if answered.is_err() && may_stall && !pumping.is_finished() {
        // Whoever reads standard output may take its time, and the rest is of no use to them.
        return answered;
    }
    match (join(pumping)?, answered) {
        (Ok(sink), Ok(())) => sink.finish(),
        // What stopped the pump is why the other side had to stop.
        // Not as an error of its kind: of a listing, a reader may have had enough; of this never.
        (Err(error), _) => Err(anyhow!("{error}")).context(name),
        (Ok(_), Err(error)) => Err(error),
    }
}

/// Has `ask` read a stream from the descriptor that it is given.
pub(super) fn into(
    mut source: Source,
    ask: impl FnOnce(OwnedFd) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut ours, theirs) = UnixStream::pair().context("a pair of sockets")?;
    let name = source.name();
    let (report, failed) = std::sync::mpsc::channel();
    spawn(move || {
        match copy(source.reader(), &mut ours) {
            Err(Broken::Reading(error)) => {
                let _ = report.send(error);
            }
            // Whoever reads it says why it stopped.
            Err(Broken::Writing(_)) | Ok(()) => {}
        }
        let _ = ours.shutdown(Shutdown::Write);
    })?;
    let answered = ask(theirs.into());
    // The pump may still wait for input that nobody needs: it ends with the process.
    match (answered, failed.try_recv()) {
        (Err(answer), Ok(error)) => Err(answer.context(format!("{name}: {error}"))),
        (answered, _) => answered,
    }
}

/// Which side of a pump broke.
enum Broken {
    Reading(io::Error),
    Writing(io::Error),
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(), Broken> {
    let mut piece = vec![0; PIECE];
    loop {
        let len = match from.read(&mut piece) {
            Ok(0) => return to.flush().map_err(Broken::Writing),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Broken::Reading(error)),
        };
        to.write_all(&piece[..len]).map_err(Broken::Writing)?;
    }
}

fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    let thread = std::thread::Builder::new().name("firn-pump".into());
    thread.spawn(work).context("starting a thread")
}

fn join<T>(thread: JoinHandle<T>) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow!("the thread that passes the stream on died"))
}
