//! One line per request, formatted here and written by a thread of its own. Bounded: when the writer
//! cannot keep up, lines are dropped and counted, requests never wait.
//!
//! Lines gather in one buffer. The writer is woken by the first line of a batch and lets more come for
//! [`GATHER`] before it writes them all at once, so a busy door wakes it rarely, not for every request.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Write},
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use prometheus::IntCounter;

use super::{AccessLine, LogFormat, LogSettings};

/// The access log. Cheap to share.
#[derive(Debug, Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

struct Shared {
    /// `access_sample`, as the bits of an `f64`.
    sample: AtomicU64,
    text: AtomicBool,
    dropped: IntCounter,
    pending: Mutex<Pending>,
    /// There is something to write, or the log is closed.
    work: Condvar,
    /// All is written.
    done: Condvar,
}

/// Lines that wait for the writer.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    lines: u64,
    closed: bool,
    finished: bool,
}

impl AccessLog {
    /// An access log on standard output. `dropped` counts lines that could not be written
    /// (`Metrics::access_lines_dropped`).
    pub fn start(settings: &LogSettings, dropped: IntCounter) -> io::Result<Self> {
        Self::to(settings, dropped, io::stdout())
    }

    /// The same with another place to write to.
    pub fn to(settings: &LogSettings, dropped: IntCounter, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            sample: AtomicU64::new(0),
            text: AtomicBool::new(false),
            dropped,
            pending: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("access-log".into()).spawn(move || writer.run(sink))?;
        let log = Self { shared };
        log.apply(settings);
        Ok(log)
    }

    /// Takes over a new share of requests. The form of lines stays until the next start, as the logs' does.
    pub fn apply(&self, settings: &LogSettings) {
        self.shared.sample.store(settings.access_sample.to_bits(), Ordering::Relaxed);
    }

    /// Whether this request gets a line (`access_sample`).
    pub fn sampled(&self) -> bool {
        let sample = f64::from_bits(self.shared.sample.load(Ordering::Relaxed));
        sample >= 1.0 || (sample > 0.0 && fastrand::f64() < sample)
    }

    /// Formats and hands over one line; never waits for the output.
    pub fn write(&self, line: &AccessLine<'_>) {
        let format = if self.shared.text.load(Ordering::Relaxed) { LogFormat::Text } else { LogFormat::Json };
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            line.render(format, scratch);
            self.shared.hand_over(scratch);
        });
    }

    /// Writes what waits and stops; lines that come later are dropped. Waits no longer than
    /// two seconds for an output that takes nothing; what then still waits is lost and counted.
    pub fn shutdown(&self) {
        let mut pending = self.shared.pending.lock();
        pending.closed = true;
        self.shared.work.notify_one();
        if self.shared.done.wait_while_for(&mut pending, |p| !p.finished, SHUTDOWN).timed_out() {
            self.shared.dropped.inc_by(mem::take(&mut pending.lines));
            pending.bytes.clear();
        }
    }
}

impl Shared {
    fn hand_over(&self, line: &[u8]) {
        let mut pending = self.pending.lock();
        if pending.closed || pending.bytes.len() + line.len() > MOST_PENDING {
            drop(pending);
            return self.dropped.inc();
        }
        let before = pending.bytes.len();
        pending.bytes.extend_from_slice(line);
        pending.lines += 1;
        let wake = before == 0 || (before < ENOUGH && pending.bytes.len() >= ENOUGH);
        drop(pending);
        if wake {
            self.work.notify_one();
        }
    }

    fn run(&self, mut sink: impl Write) {
        let mut batch = Vec::new();
        let mut failing = false;
        loop {
            let mut pending = self.gathered();
            if pending.bytes.is_empty() {
                pending.finished = true;
                self.done.notify_all();
                return;
            }
            mem::swap(&mut pending.bytes, &mut batch);
            let lines = mem::take(&mut pending.lines);
            drop(pending);

            let written = sink.write_all(&batch).and_then(|()| sink.flush());
            if let Err(error) = &written {
                self.dropped.inc_by(lines);
                if !failing {
                    tracing::error!(%error, "access lines cannot be written");
                }
            }
            failing = written.is_err();
            batch.clear();
            batch.shrink_to(ENOUGH);
        }
    }

    /// Waits for a batch. Empty only when the log is closed and all is written.
    fn gathered(&self) -> MutexGuard<'_, Pending> {
        let mut pending = self.pending.lock();
        self.work.wait_while(&mut pending, |p| p.bytes.is_empty() && !p.closed);
        if !pending.closed && pending.bytes.len() < ENOUGH {
            self.work.wait_while_for(&mut pending, |p| !p.closed && p.bytes.len() < ENOUGH, GATHER);
        }
        pending
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

thread_local! {
    /// Lines are formatted here, outside the lock.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How long the writer lets lines gather.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that are worth a write at once.
const ENOUGH: usize = 64 << 10;
/// Most bytes that wait; some thousand lines.
const MOST_PENDING: usize = 2 << 20;
/// How long `shutdown` waits for the output.
const SHUTDOWN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{super::access_line::tests::line, *};

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn lines(&self) -> Vec<String> {
            String::from_utf8_lossy(&self.0.lock()).lines().map(str::to_owned).collect()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing until it is told to.
    struct Stuck(mpsc::Receiver<()>, Sink);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An output that is gone.
    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn counter() -> IntCounter {
        IntCounter::new("dropped_total", "Dropped.").expect("the name is valid")
    }

    #[test]
    fn every_line_of_every_thread_is_written() {
        let (sink, dropped) = (Sink::default(), counter());
        let log = AccessLog::to(&LogSettings::default(), dropped.clone(), sink.clone()).expect("a thread starts");
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || (0..50).for_each(|_| log.write(&line("/a"))))
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        log.shutdown();
        let lines = sink.lines();
        assert_eq!((lines.len(), dropped.get()), (200, 0));
        assert!(lines.iter().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()));
        log.write(&line("/late"));
        assert_eq!((sink.lines().len(), dropped.get()), (200, 1));
    }

    #[test]
    fn a_stuck_output_costs_lines_not_requests() {
        let (release, held) = mpsc::channel();
        let (sink, dropped) = (Sink::default(), counter());
        let log = AccessLog::to(&LogSettings::default(), dropped.clone(), Stuck(held, sink.clone()))
            .expect("a thread starts");
        let path = format!("/{}", "x".repeat(8000));
        let sent = 2 * MOST_PENDING / path.len() + 2 * ENOUGH / path.len() + 100;
        for _ in 0..sent {
            log.write(&line(&path));
        }
        assert!(dropped.get() > 0);
        drop(release);
        log.shutdown();
        assert_eq!(sink.lines().len() + dropped.get() as usize, sent);
    }

    #[test]
    fn lines_for_an_output_that_is_gone_are_counted() {
        let dropped = counter();
        let log = AccessLog::to(&LogSettings::default(), dropped.clone(), Broken).expect("a thread starts");
        log.write(&line("/a"));
        log.write(&line("/b"));
        log.shutdown();
        assert_eq!(dropped.get(), 2);
    }

    #[test]
    fn the_sample_can_change_and_the_form_stays() {
        let sink = Sink::default();
        let log = AccessLog::to(&LogSettings::default(), counter(), sink.clone()).expect("a thread starts");
        assert!((0..100).all(|_| log.sampled()));
        log.apply(&LogSettings { access_sample: 0.0, format: LogFormat::Text, ..LogSettings::default() });
        assert!(!(0..100).any(|_| log.sampled()));
        log.apply(&LogSettings { access_sample: 0.5, format: LogFormat::Text, ..LogSettings::default() });
        let hits = (0..10_000).filter(|_| log.sampled()).count();
        assert!((4_000..6_000).contains(&hits), "{hits}");
        log.write(&line("/a"));
        log.shutdown();
        assert!(sink.lines()[0].starts_with("{\"time\":"), "{:?}", sink.lines());
    }
}
