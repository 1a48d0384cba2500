#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::mpsc::{Receiver, Sender, channel};

use firn_tiering::SystemClock;

use super::*;
use crate::control::client::{Client, Silent};
use crate::control::protocol::Verb;
use crate::control::server::Handler;
use crate::daemon::transfers::Transfers;
use crate::volume_dir::VolumeDir;

/// Longer than any wire may wait.
const SOON: Duration = Duration::from_secs(20);

/// Writes without end, or reads to the end, and says how that ended.
struct Endless {
    reads: bool,
    transfers: Arc<Transfers>,
    ended: Sender<io::Result<u64>>,
}

impl Handler for Endless {
    fn handle(&self, _: Verb, out: &mut Outbox) -> anyhow::Result<()> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let transfer = self.transfers.begin()?;
        let wire = Wire::take(out, &transfer, &clock, "testing")?;
        let (mut bytes, asker) = wire.split();
        let ended = if self.reads {
            io::copy(&mut bytes, &mut io::sink())
        } else {
            loop {
                if let Err(error) = bytes.write_all(&[7; 100_000]) {
                    break Err(error);
                }
                asker.follow(1, 2);
            }
        };
        self.ended.send(ended).unwrap();
        Ok(())
    }
}

struct Scene {
    transfers: Arc<Transfers>,
    ended: Receiver<io::Result<u64>>,
    ours: UnixStream,
    asking: std::thread::JoinHandle<anyhow::Result<()>>,
}

fn scene(reads: bool) -> Scene {
    let transfers = Arc::new(Transfers::default());
    let (say, ended) = channel();
    let handler = Endless { reads, transfers: Arc::clone(&transfers), ended: say };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let volume = VolumeDir::unchecked("/nowhere".into());
    let client = Client::here(&volume, Arc::new(handler));
    let asking =
        std::thread::spawn(move || client.ask_along(Verb::Sync, Some(theirs.into()), &mut Silent));
    Scene { transfers, ended, ours, asking }
}

impl Scene {
    fn error(&self) -> io::Error {
        self.ended.recv_timeout(SOON).expect("it hangs").unwrap_err()
    }
}

#[test]
fn a_reader_that_is_gone_ends_a_write() {
    let scene = scene(false);
    let mut some = [0; 1000];
    (&scene.ours).read_exact(&mut some).unwrap();
    assert_eq!(some, [7; 1000]);
    scene.ours.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(scene.error().kind(), io::ErrorKind::BrokenPipe);
    scene.asking.join().unwrap().unwrap();
}

#[test]
fn the_end_of_the_mount_ends_a_write_that_nobody_reads_and_a_read_that_nobody_writes() {
    for reads in [false, true] {
        let scene = scene(reads);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(scene.transfers.end(SOON), 0, "it does not end");
        assert!(scene.error().to_string().contains("unmounted"));
        scene.asking.join().unwrap().unwrap();
    }
}

#[test]
fn a_stream_ends_when_its_writer_has_closed_it() {
    let scene = scene(true);
    (&scene.ours).write_all(&[1; 300_000]).unwrap();
    scene.ours.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(scene.ended.recv_timeout(SOON).unwrap().unwrap(), 300_000);
    scene.asking.join().unwrap().unwrap();
}

#[test]
fn an_asker_that_is_gone_ends_what_it_asked_for() {
    let transfers = Arc::new(Transfers::default());
    let (say, ended) = channel();
    let handler = Endless { reads: true, transfers, ended: say };
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let (control, answering) = crate::control::server::answer_here(Arc::new(handler)).unwrap();
    crate::control::client::ask_and_leave(control, Verb::Sync, theirs.into());
    let error = ended.recv_timeout(SOON).expect("it hangs").unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::BrokenPipe), "{error}");
    answering.join().unwrap();
}
