//! Metrics of the process itself, under the names every Prometheus client uses. Read from `/proc` when
//! asked; what cannot be read is left out.

use std::fs;

use prometheus::{
    Counter, Gauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Collects `process_*`.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    cpu: Counter,
    gauges: [(Gauge, Read); 5],
}

/// Reads a value; none if `/proc` does not tell.
type Read = fn() -> Option<f64>;

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let gauge = |name: &str, help: &str| Gauge::new(name, help).expect("names are constant and valid");
        Self {
            cpu: cpu_counter(),
            gauges: [
                (gauge("process_open_fds", "Open file descriptors."), open_fds),
                (gauge("process_max_fds", "Most file descriptors that may be open."), max_fds),
                (gauge("process_resident_memory_bytes", "Resident memory."), resident_bytes),
                (gauge("process_virtual_memory_bytes", "Virtual memory."), virtual_bytes),
                (gauge("process_start_time_seconds", "Start of the process, Unix time."), start_time),
            ],
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(|(gauge, _)| gauge.desc()).chain(self.cpu.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        if let Some(seconds) = cpu_seconds() {
            // A fresh one each time: a counter cannot be set, and two scrapes may run at once.
            let cpu = cpu_counter();
            cpu.inc_by(seconds);
            families.extend(cpu.collect());
        }
        for (gauge, read) in &self.gauges {
            if let Some(value) = read() {
                gauge.set(value);
                families.extend(gauge.collect());
            }
        }
        families
    }
}

fn cpu_counter() -> Counter {
    Counter::new("process_cpu_seconds_total", "User and system CPU time spent.").expect("the name is valid")
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    Some((stat_field(&stat, 14)? + stat_field(&stat, 15)?) as f64 / TICKS_PER_SECOND)
}

fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot as f64 + stat_field(&stat, 22)? as f64 / TICKS_PER_SECOND)
}

fn open_fds() -> Option<f64> {
    // One of them is the directory being read.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn resident_bytes() -> Option<f64> {
    status_kib("VmRSS:").map(|kib| kib * 1024.0)
}

fn virtual_bytes() -> Option<f64> {
    status_kib("VmSize:").map(|kib| kib * 1024.0)
}

fn status_kib(field: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// A field of `/proc/self/stat` by its number in proc(5). The second, the program's name in
/// parentheses, may hold anything; what follows is counted from its end.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let rest = stat.rsplit_once(')')?.1;
    rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// `USER_HZ`: 100 on every Linux we build for.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 111 222 13 14 15 16 17 18 999 20";
        assert_eq!(stat_field(stat, 14), Some(111));
        assert_eq!(stat_field(stat, 15), Some(222));
        assert_eq!(stat_field(stat, 22), Some(999));
        assert_eq!(stat_field(stat, 99), None);
        assert_eq!(stat_field("nonsense", 14), None);
    }

    #[test]
    fn this_process_is_described() {
        let families = ProcessCollector::new().collect();
        let names: Vec<&str> = families.iter().map(MetricFamily::name).collect();
        assert_eq!(
            names,
            [
                "process_cpu_seconds_total",
                "process_open_fds",
                "process_max_fds",
                "process_resident_memory_bytes",
                "process_virtual_memory_bytes",
                "process_start_time_seconds",
            ]
        );
        assert!(resident_bytes() > Some(1e6) && open_fds() > Some(2.0) && start_time() > Some(1.6e9));
    }
}
