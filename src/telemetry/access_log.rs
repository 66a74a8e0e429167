//! One line per request, formatted by the worker and written by a thread of its own. Bounded: when the writer
//! cannot keep up, lines are dropped and counted, requests never wait.
//!
//! Each worker formats into a buffer of its own, under a lock that only the writer shares. That is cheaper than to
//! hand over what a line is made of and have the writer format it (`cargo bench --bench seen`). The writer is woken
//! by the first line of a batch and lets more come for [`GATHER`] before it writes them all, so a busy door wakes it
//! rarely, not for every request. Lines of one worker are in order; those of several stand together by batch.

use std::{
    array, fmt,
    io::{self, Write},
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

use super::{
    AccessLine, LogFormat, LogSettings,
    cells::{LANES, Padded, lane},
};

/// The access log. Cheap to share.
#[derive(Debug, Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

struct Shared {
    /// `access_sample`, as the bits of an `f64`.
    sample: AtomicU64,
    format: LogFormat,
    dropped: IntCounter,
    /// A buffer for each worker.
    pending: [Padded<Mutex<Pending>>; LANES],
    writer: Mutex<Writer>,
    /// There is something to write, or the log is closed.
    work: Condvar,
    /// All is written.
    done: Condvar,
}

/// Lines of one worker that wait for the writer.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    lines: u64,
    closed: bool,
}

/// What the writer is to do.
#[derive(Default)]
struct Writer {
    /// Some buffer is not empty.
    work: bool,
    /// Some buffer has [`ENOUGH`].
    enough: bool,
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
            format: settings.format,
            dropped,
            pending: array::from_fn(|_| Padded::default()),
            writer: Mutex::default(),
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

    /// Formats one line for the writer; never waits for the output.
    pub fn write(&self, line: &AccessLine<'_>) {
        let shared = &*self.shared;
        let mut pending = shared.pending[lane()].0.lock();
        let before = pending.bytes.len();
        // One more line than fits is a head's length more, which is bounded.
        if pending.closed || before >= MOST_PENDING {
            drop(pending);
            return shared.dropped.inc();
        }
        line.render(shared.format, &mut pending.bytes);
        pending.lines += 1;
        let enough = before < ENOUGH && pending.bytes.len() >= ENOUGH;
        drop(pending);
        if before == 0 || enough {
            shared.wake(enough);
        }
    }

    /// Writes what waits and stops; lines that come later are dropped. Waits no longer than
    /// two seconds for an output that takes nothing; what then still waits is lost and counted.
    pub fn shutdown(&self) {
        let shared = &*self.shared;
        shared.pending.iter().for_each(|pending| pending.0.lock().closed = true);
        let mut writer = shared.writer.lock();
        writer.closed = true;
        shared.work.notify_one();
        if shared.done.wait_while_for(&mut writer, |writer| !writer.finished, SHUTDOWN).timed_out() {
            drop(writer);
            for pending in &shared.pending {
                let mut pending = pending.0.lock();
                shared.dropped.inc_by(mem::take(&mut pending.lines));
                pending.bytes.clear();
            }
        }
    }
}

impl Shared {
    /// Says that there are lines, for the first of them and where there are many.
    fn wake(&self, enough: bool) {
        let mut writer = self.writer.lock();
        let knew = writer.work && (writer.enough || !enough);
        writer.work = true;
        writer.enough |= enough;
        drop(writer);
        if !knew {
            self.work.notify_one();
        }
    }

    fn run(&self, mut sink: impl Write) {
        let mut batch = Vec::new();
        let mut failing = false;
        loop {
            let last = self.gathered();
            for pending in &self.pending {
                let mut pending = pending.0.lock();
                mem::swap(&mut pending.bytes, &mut batch);
                let lines = mem::take(&mut pending.lines);
                drop(pending);
                if batch.is_empty() {
                    continue;
                }
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
            if last {
                self.writer.lock().finished = true;
                self.done.notify_all();
                return;
            }
        }
    }

    /// Waits for a batch. Whether it is the last: the log is closed, and no line will come any more.
    fn gathered(&self) -> bool {
        let mut writer = self.writer.lock();
        self.work.wait_while(&mut writer, |writer| !writer.work && !writer.closed);
        let until = Instant::now() + GATHER;
        self.work.wait_while_until(&mut writer, |writer| !writer.enough && !writer.closed, until);
        // Before the buffers are looked at: who adds to an empty one from then on says so.
        (writer.work, writer.enough) = (false, false);
        writer.closed
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

/// How long the writer lets lines gather.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that are worth a write at once.
const ENOUGH: usize = 64 << 10;
/// Most bytes of one worker that wait; some thousand lines.
const MOST_PENDING: usize = 1 << 20;
/// How long `shutdown` waits for the output.
const SHUTDOWN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{
        super::{access_line::tests::line, enter_lane},
        *,
    };

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
            .map(|worker| {
                let log = log.clone();
                thread::spawn(move || {
                    enter_lane(worker);
                    (0..50).for_each(|_| log.write(&line("/a")));
                })
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

    #[test]
    fn lines_have_the_form_that_is_set() {
        for (format, start) in [(LogFormat::Json, "{\"time\":"), (LogFormat::Text, "2026-")] {
            let sink = Sink::default();
            let settings = LogSettings { format, ..LogSettings::default() };
            let log = AccessLog::to(&settings, counter(), sink.clone()).expect("a thread starts");
            log.write(&line("/a"));
            log.shutdown();
            assert!(sink.lines()[0].starts_with(start), "{:?}", sink.lines());
        }
    }
}
