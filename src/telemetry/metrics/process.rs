//! What Prometheus' own clients say of a process, read from Linux's `/proc`; nothing elsewhere.

use std::fs;

/// One of them.
pub struct Gauge {
    /// Its name, which every process of any program has in common.
    pub name: &'static str,
    /// Prometheus' type.
    pub kind: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Its value.
    pub value: f64,
}

/// All that can be read.
pub fn look() -> Vec<Gauge> {
    let (ticks, page) = (rustix::param::clock_ticks_per_second() as f64, rustix::param::page_size() as f64);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program stands in brackets, and may hold anything. The third field follows it.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied();
    let file = |name: &str| fs::read_to_string(name).unwrap_or_default();
    let boot =
        file("/proc/stat").lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    let limit = file("/proc/self/limits")
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<f64>().ok());
    let open = fs::read_dir("/proc/self/fd").map(|open| open.count() as f64).ok();
    let gauge = |name, kind, help, value: Option<f64>| value.map(|value| Gauge { name, kind, help, value });
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks);
    let start = field(22).zip(boot).map(|(start, boot)| boot + start / ticks);
    [
        gauge("process_cpu_seconds_total", "counter", "User and system CPU time in seconds.", cpu),
        gauge(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory in bytes.",
            field(24).map(|rss| rss * page),
        ),
        gauge("process_virtual_memory_bytes", "gauge", "Virtual memory in bytes.", field(23)),
        gauge(
            "process_start_time_seconds",
            "gauge",
            "When the process started, in seconds since 1970.",
            start,
        ),
        gauge("process_open_fds", "gauge", "Open file descriptors.", open),
        gauge("process_max_fds", "gauge", "Maximum number of open file descriptors.", limit),
    ]
    .into_iter()
    .flatten()
    .collect()
}
