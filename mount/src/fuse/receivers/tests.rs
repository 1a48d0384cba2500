#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
//! Against a queue in memory that blocks its readers as the kernel's does.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use super::*;

const THREADS: usize = 4;

/// Much longer than any wait that ends by itself.
const LONG: Duration = Duration::from_secs(30);

type Request = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
struct Queue(Arc<(Mutex<Requests>, Condvar)>);

#[derive(Default)]
struct Requests {
    waiting: VecDeque<Request>,
    ended: bool,
}

impl Queue {
    fn push(&self, request: impl FnOnce() + Send + 'static) {
        self.0.0.lock().waiting.push_back(Box::new(request));
        self.0.1.notify_one();
    }

    fn read(&self) -> Option<Request> {
        let mut requests = self.0.0.lock();
        while requests.waiting.is_empty() && !requests.ended {
            self.0.1.wait(&mut requests);
        }
        requests.waiting.pop_front()
    }

    fn end(&self) {
        self.0.0.lock().ended = true;
        self.0.1.notify_all();
    }
}

impl Source for Queue {
    fn pending(&self) -> Pending {
        let requests = self.0.0.lock();
        let none = requests.waiting.is_empty() && !requests.ended;
        if none { Pending::Nothing } else { Pending::Something }
    }
}

/// A mount without a kernel.
struct Mount {
    queue: Queue,
    receivers: Receivers,
    threads: Vec<JoinHandle<()>>,
}

impl Mount {
    fn new() -> Self {
        let queue = Queue::default();
        let receivers = Receivers::new(queue.clone(), THREADS, 2);
        let threads = (0..THREADS).map(|_| {
            let (queue, receivers) = (queue.clone(), receivers.clone());
            std::thread::spawn(move || {
                while let Some(request) = queue.read() {
                    let _serving = receivers.serving();
                    request();
                }
            })
        });
        let threads = threads.collect();
        Self { queue, receivers, threads }
    }

    /// Has a request served and waits for its answer.
    fn call(&self) {
        let (answer, answered) = channel();
        self.queue.push(move || answer.send(()).unwrap());
        answered.recv_timeout(LONG).unwrap();
    }

    /// A request that does not end before what is returned is dropped; it has begun.
    fn hang(&self) -> Sender<()> {
        let (begin, begun) = channel();
        let (end, ended): (_, Receiver<()>) = channel();
        self.queue.push(move || {
            begin.send(()).unwrap();
            ended.recv().unwrap_err();
        });
        begun.recv_timeout(LONG).unwrap();
        end
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_so(&self.receivers.0.state.lock()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.receivers.0.state.lock());
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn end(self) {
        self.queue.end();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn while_requests_come_one_thread_waits_and_the_others_rest() {
    let mount = Mount::new();
    let deadline = Instant::now() + LONG;
    // A pause of the test itself, or other work, may let all come back; they rest again soon.
    while mount.receivers.0.state.lock().resting < THREADS - 1 {
        assert!(Instant::now() < deadline, "{:?}", mount.receivers.0.state.lock());
        mount.call();
    }
    mount.end();
}

#[test]
fn all_are_back_at_the_device_when_it_is_quiet() {
    let mount = Mount::new();
    (0..50).for_each(|_| mount.call());
    mount.wait_until("all wait", |state| state.waiting == THREADS && state.resting == 0);
    assert_eq!(mount.receivers.0.state.lock().recalled, 0);
    mount.call();
    mount.end();
}

#[test]
fn requests_that_hang_keep_no_other_from_being_served() {
    let mount = Mount::new();
    (0..50).for_each(|_| mount.call());
    let hanging: Vec<_> = (1..THREADS).map(|_| mount.hang()).collect();
    (0..50).for_each(|_| mount.call());
    drop(hanging);
    (0..50).for_each(|_| mount.call());
    mount.wait_until("all wait", |state| state.waiting == THREADS && state.resting == 0);
    mount.end();
}

#[test]
fn the_end_of_the_connection_ends_those_that_rest() {
    for calls in [1, 10, 100] {
        let mount = Mount::new();
        (0..calls).for_each(|_| mount.call());
        mount.end();
    }
}

#[test]
fn a_long_request_has_another_thread_wait_at_once() {
    let mount = Mount::new();
    let receivers = mount.receivers.clone();
    let mut state = receivers.0.state.lock();
    // As if all but one rested, and this one serves.
    (state.waiting, state.resting) = (1, THREADS - 1);
    drop(state);
    std::mem::forget(receivers.serving_long());
    let mut state = receivers.0.state.lock();
    assert_eq!((state.waiting, state.recalled), (0, 1));
    (state.waiting, state.resting, state.recalled) = (THREADS, 0, 0);
    drop(state);
    mount.end();
}

#[test]
fn when_looking_does_not_pay_all_wait_at_the_device() {
    let mount = Mount::new();
    let shared = &mount.receivers.0;
    let mut state = shared.state.lock();
    state.resting = THREADS - 1;
    drop(state);
    (0..DOUBTS / 2).for_each(|_| shared.note(Look::InVain));
    let mut state = shared.state.lock();
    assert_eq!((state.recalled, state.pace.skip), (THREADS - 1, PAUSES.0));
    (state.resting, state.recalled) = (0, 0);
    drop(state);
    // Nobody rests in the meantime.
    for _ in 0..PAUSES.0 {
        mount.call();
        assert_eq!(shared.state.lock().resting, 0);
    }
    mount.end();
}

/// Requests for which nobody looks once `outcomes` have been noted.
fn left_out(pace: &mut Pace, outcome: Look) -> u32 {
    while !pace.note(outcome) {}
    (0..).take_while(|_| !pace.looks()).count() as u32
}

#[test]
fn looking_is_left_out_for_longer_and_longer_up_to_a_bound() {
    for outcome in [Look::InVain, Look::Shared, Look::AtOnce] {
        let mut pace = Pace::default();
        let pauses: Vec<_> = (0..12).map(|_| left_out(&mut pace, outcome)).collect();
        assert_eq!(pauses[..3], [PAUSES.0, 2 * PAUSES.0, 4 * PAUSES.0]);
        assert_eq!(pauses.last(), Some(&PAUSES.1));
        // After it has paid for long enough the next pause is a short one.
        (0..=PAID).for_each(|_| assert!(!pace.note(Look::Waited)));
        assert_eq!(left_out(&mut pace, outcome), PAUSES.0);
    }
}

#[test]
fn what_speaks_against_looking_is_outweighed_by_looks_that_pay() {
    let mut pace = Pace::default();
    for _ in 0..10_000 {
        assert!(!pace.note(Look::InVain));
        assert!(!pace.note(Look::AtOnce));
        (0..3).for_each(|_| assert!(!pace.note(Look::Waited)));
    }
}

#[test]
fn a_look_ends_when_patience_does_or_when_others_had_the_processor() {
    let step = Duration::from_micros(1);
    assert_eq!(look_ends(Pending::Nothing, PATIENCE - step, step), None);
    assert_eq!(look_ends(Pending::Nothing, PATIENCE, step), Some(Look::InVain));
    assert_eq!(look_ends(Pending::Something, step, step), Some(Look::Waited));
    for pending in [Pending::Nothing, Pending::Something] {
        assert_eq!(look_ends(pending, SHARED, SHARED), Some(Look::Shared));
    }
}

#[test]
fn nobody_looks_with_one_processor_or_one_thread() {
    for (threads, processors) in [(4, 1), (1, 4)] {
        assert!(!Receivers::new(Queue::default(), threads, processors).0.may_look);
    }
}
