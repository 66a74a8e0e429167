//! What is counted for every request, in cells of each worker's own: workers never write the same line of memory, and
//! a scrape sums. Every count is exact; a scrape in the middle of one may see it or not.

use std::{
    array,
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus::{
    core::{Atomic, Collector, Desc, GenericCounter, GenericCounterVec},
    proto::{Bucket, Histogram, Metric, MetricFamily, MetricType},
};

/// A counter with a cell for each worker.
pub type Counter = GenericCounter<Cells>;

/// Counters with a cell for each worker, by label.
pub type CounterVec = GenericCounterVec<Cells>;

thread_local! {
    /// Which cells are this thread's.
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// Makes the present thread worker `number`: it gets cells of its own. Other threads share those of worker 0; of more
/// than 16 workers several share, too.
pub fn enter_lane(number: usize) {
    LANE.set(number % LANES);
}

#[inline]
pub(super) fn lane() -> usize {
    LANE.get() % LANES
}

/// A number in parts, one for each worker.
#[derive(Debug)]
pub struct Cells([Padded<AtomicU64>; LANES]);

/// Alone in its lines of memory, of which processors fetch two at a time.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

impl Atomic for Cells {
    type T = u64;

    fn new(value: u64) -> Self {
        let cells = Self(array::from_fn(|_| Padded::default()));
        cells.set(value);
        cells
    }

    fn set(&self, value: u64) {
        for (n, cell) in self.0.iter().enumerate() {
            cell.0.store(if n == 0 { value } else { 0 }, Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.iter().fold(0, |sum, cell| sum.wrapping_add(cell.0.load(Relaxed)))
    }

    #[inline]
    fn inc_by(&self, delta: u64) {
        self.0[lane()].0.fetch_add(delta, Relaxed);
    }

    fn dec_by(&self, delta: u64) {
        self.0[lane()].0.fetch_sub(delta, Relaxed);
    }
}

/// A histogram of times. Clones share it.
#[derive(Debug, Clone)]
pub struct Times(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    desc: Desc,
    /// Upper bounds of the buckets but the last, in nanoseconds, ascending.
    bounds: [u64; BOUNDS],
    parts: [Padded<Part>; LANES],
}

/// What one worker has seen.
#[derive(Debug, Default)]
struct Part {
    /// The last: beyond all bounds.
    buckets: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
}

impl Times {
    /// None seen yet. `bounds` are the buckets' upper bounds, ascending.
    pub(super) fn new(name: &str, help: &str, bounds: [Duration; BOUNDS]) -> Result<Self, prometheus::Error> {
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())?;
        Ok(Self(Arc::new(Inner { desc, bounds: bounds.map(nanos), parts: array::from_fn(|_| Padded::default()) })))
    }

    /// One more, that took `time`.
    #[inline]
    pub fn observe(&self, time: Duration) {
        let (ns, inner) = (nanos(time), &*self.0);
        let part = &inner.parts[lane()].0;
        // Most are short.
        let bucket = inner.bounds.iter().position(|bound| ns <= *bound).unwrap_or(BOUNDS);
        part.buckets[bucket].fetch_add(1, Relaxed);
        part.sum_ns.fetch_add(ns, Relaxed);
    }
}

impl Collector for Times {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Inner { desc, bounds, parts } = &*self.0;
        let seen = |bucket: usize| -> u64 { parts.iter().map(|part| part.0.buckets[bucket].load(Relaxed)).sum() };
        let mut count = 0;
        let buckets = bounds.iter().enumerate().map(|(n, bound)| {
            count += seen(n);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / 1e9);
            bucket.set_cumulative_count(count);
            bucket
        });
        let buckets = buckets.collect();
        let sum_ns: u64 = parts.iter().map(|part| part.0.sum_ns.load(Relaxed)).sum();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count + seen(BOUNDS));
        histogram.set_sample_sum(sum_ns as f64 / 1e9);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name(desc.fq_name.clone());
        family.set_help(desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[inline]
fn nanos(time: Duration) -> u64 {
    // In 64 bits, which last for 584 years.
    time.as_secs().wrapping_mul(1_000_000_000).wrapping_add(time.subsec_nanos().into())
}

/// Workers that share nothing. More would make every series larger: 2 KiB each as it is.
pub(super) const LANES: usize = 16;
/// Bounds of a histogram of times.
pub(super) const BOUNDS: usize = 17;

#[cfg(test)]
mod tests {
    use std::thread;

    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn what_all_workers_count_is_summed() {
        let counter = Counter::new("all_total", "All.").expect("a good name");
        let numbers = [0, 1, 2, LANES, LANES + 1];
        thread::scope(|threads| {
            for number in numbers {
                let counter = &counter;
                threads.spawn(move || {
                    enter_lane(number);
                    (0..1000).for_each(|_| counter.inc());
                });
            }
        });
        assert_eq!(counter.get(), 1000 * numbers.len() as u64);
        counter.reset();
        assert_eq!(counter.get(), 0);
    }

    /// The same as the crate's own histogram shows, on bounds and between them.
    #[test]
    fn times_are_shown_as_any_histogram() {
        let seconds: [f64; BOUNDS] = array::from_fn(|n| (n + 1) as f64 / 1000.0);
        let bounds = seconds.map(Duration::from_secs_f64);
        let times = Times::new("a_seconds", "Times.", bounds).expect("a good name");
        let options = prometheus::HistogramOpts::new("a_seconds", "Times.").buckets(seconds.into());
        let theirs = prometheus::Histogram::with_opts(options).expect("a good name");
        for (number, micros) in [0, 999, 1000, 1001, 2000, 16_999, 17_000, 17_001, 5_000_000].into_iter().enumerate() {
            let (time, times) = (Duration::from_micros(micros), &times);
            thread::scope(|threads| {
                threads.spawn(move || {
                    enter_lane(number);
                    times.observe(time);
                });
            });
            theirs.observe(time.as_secs_f64());
        }
        let text = |collector: Box<dyn Collector>| {
            let registry = Registry::new();
            registry.register(collector).expect("a fresh registry");
            TextEncoder::new().encode_to_string(&registry.gather()).expect("it can be written")
        };
        let (ours, theirs) = (text(Box::new(times)), text(Box::new(theirs)));
        let without_sum = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with("a_seconds_sum")).map(str::to_owned).collect()
        };
        assert_eq!(without_sum(&ours), without_sum(&theirs));
        // Theirs adds what is no whole number of anything.
        assert!(ours.contains("a_seconds_sum 5.056\n"), "{ours}");
    }
}
