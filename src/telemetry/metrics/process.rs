//! Series of the process itself, kept by the `prometheus` crate: build, CPU, memory, descriptors, our own HTTP.
//!
//! Owns a registry per proxy (nothing is process-wide: two proxies must fit in one test). Must not know tenants; at
//! their number a registry would cost a hundred times what the table in `tenants` does.

use std::time::Duration;

use prometheus::{Counter, Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, proto};

use super::text::{Kind, TextWriter, Value};

/// Held handles of the process' own series.
#[derive(Debug)]
pub(super) struct Process {
    registry: Registry,
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    threads: IntGauge,
    open_fds: IntGauge,
    max_fds: Gauge,
    requests: IntCounterVec,
    scrape_seconds: Histogram,
}

impl Process {
    /// Registers everything.
    ///
    /// # Errors
    /// If two series have one name, which a test rules out.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let build = Opts::new("tenantry_build_info", "The version that runs, and for what it was built.")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("arch", std::env::consts::ARCH)
            .const_label("os", std::env::consts::OS);
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        let requests =
            Opts::new("tenantry_http_requests_total", "HTTP requests answered, by page and status.");
        let scrapes = HistogramOpts::new("tenantry_scrape_seconds", "Time to collect and write /metrics.")
            .buckets(vec![0.001, 0.005, 0.025, 0.1, 0.5, 2.5]);
        let process = Self {
            registry: Registry::new(),
            cpu_seconds: Counter::new(
                "process_cpu_seconds_total",
                "CPU time used, user and system, in seconds.",
            )?,
            resident_bytes: IntGauge::new("process_resident_memory_bytes", "Memory resident, in bytes.")?,
            virtual_bytes: IntGauge::new("process_virtual_memory_bytes", "Address space, in bytes.")?,
            threads: IntGauge::new("process_threads", "Operating system threads.")?,
            open_fds: IntGauge::new("process_open_fds", "File descriptors open.")?,
            max_fds: Gauge::new("process_max_fds", "File descriptors that may be open.")?,
            requests: IntCounterVec::new(requests, &["page", "code"])?,
            scrape_seconds: Histogram::with_opts(scrapes)?,
        };
        process.register(build)?;
        Ok(process)
    }

    fn register(&self, build: IntGauge) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(build))?;
        self.registry.register(Box::new(self.requests.clone()))?;
        self.registry.register(Box::new(self.scrape_seconds.clone()))?;
        if usage().is_none() {
            // No /proc here: better no series than series of zeros.
            return Ok(());
        }
        self.registry.register(Box::new(self.cpu_seconds.clone()))?;
        self.registry.register(Box::new(self.resident_bytes.clone()))?;
        self.registry.register(Box::new(self.virtual_bytes.clone()))?;
        self.registry.register(Box::new(self.threads.clone()))?;
        self.registry.register(Box::new(self.open_fds.clone()))?;
        self.registry.register(Box::new(self.max_fds.clone()))
    }

    /// Counts one answered request. `page` must be one of a few: it is a label.
    pub(super) fn count_request(&self, page: &str, code: u16) {
        self.requests.with_label_values(&[page, itoa::Buffer::new().format(code)]).inc();
    }

    /// Counts one scrape.
    pub(super) fn observe_scrape(&self, took: Duration) {
        self.scrape_seconds.observe(took.as_secs_f64());
    }

    /// Reads the process' usage and writes every series. One caller at a time: the CPU counter is set by difference.
    pub(super) fn write(&self, text: &mut TextWriter) {
        if let Some(usage) = usage() {
            self.cpu_seconds.inc_by((usage.cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.resident_bytes.set(usage.resident_bytes);
            self.virtual_bytes.set(usage.virtual_bytes);
            self.threads.set(usage.threads);
            self.open_fds.set(usage.open_fds);
        }
        if let Ok((soft, _)) = rlimit::getrlimit(rlimit::Resource::NOFILE) {
            self.max_fds.set(if soft == rlimit::INFINITY { f64::INFINITY } else { whole(soft) });
        }
        for family in self.registry.gather() {
            write_family(text, &family);
        }
    }
}

/// Prints what the `prometheus` crate gathered, in our dialects (its own encoder knows only one).
fn write_family(text: &mut TextWriter, family: &proto::MetricFamily) {
    let name = family.name();
    let kind = match family.get_field_type() {
        proto::MetricType::COUNTER => Kind::Counter,
        proto::MetricType::HISTOGRAM => Kind::Histogram,
        proto::MetricType::GAUGE if name.ends_with("_info") => Kind::Info,
        proto::MetricType::GAUGE | proto::MetricType::SUMMARY | proto::MetricType::UNTYPED => Kind::Gauge,
    };
    text.header(name, kind, family.help());
    for metric in family.get_metric() {
        let labels: Vec<_> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        match kind {
            Kind::Counter => text.sample(name, &labels, Value::Number(metric.get_counter().get_value())),
            Kind::Gauge | Kind::Info => {
                text.sample(name, &labels, Value::Number(metric.get_gauge().get_value()));
            }
            Kind::Histogram => write_histogram(text, name, metric.get_histogram()),
        }
    }
}

fn write_histogram(text: &mut TextWriter, name: &str, histogram: &proto::Histogram) {
    let bucket_name = format!("{name}_bucket");
    for bucket in histogram.get_bucket() {
        let bound = format!("{:?}", bucket.upper_bound());
        text.sample(&bucket_name, &[("le", &bound)], Value::Count(bucket.cumulative_count()));
    }
    let count = Value::Count(histogram.get_sample_count());
    text.sample(&bucket_name, &[("le", "+Inf")], count);
    text.sample(&format!("{name}_sum"), &[], Value::Number(histogram.get_sample_sum()));
    text.sample(&format!("{name}_count"), &[], count);
}

/// What the kernel says about this process.
struct Usage {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    threads: i64,
    open_fds: i64,
}

/// `None` where there is no `/proc`.
fn usage() -> Option<Usage> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (resident_kib, virtual_kib) = (status_field(&status, "VmRSS:")?, status_field(&status, "VmSize:")?);
    // The directory we are reading is one of the descriptors.
    let open_fds = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    Some(Usage {
        cpu_seconds: whole(cpu_ticks(&stat)?) / TICKS_PER_SECOND,
        resident_bytes: resident_kib.saturating_mul(1024),
        virtual_bytes: virtual_kib.saturating_mul(1024),
        threads: status_field(&status, "Threads:")?,
        open_fds: i64::try_from(open_fds).ok()?,
    })
}

fn status_field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time (proc(5), fields 14 and 15). The second field is the program's name in brackets and may hold
/// anything, so counting starts behind the last bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// A count as a float; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "ticks and descriptors stay far below 2^53")]
const fn whole(count: u64) -> f64 {
    count as f64
}

/// `USER_HZ`: fixed by the kernel's interface to programs on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::text::Dialect;

    #[test]
    fn the_program_name_cannot_confuse_the_cpu_time() {
        let stat = "7 (a) b) 1 (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (short) S 1"), None);
    }

    #[test]
    fn every_series_registers_and_prints() {
        let process = Process::new().unwrap();
        process.count_request("/metrics", 200);
        process.observe_scrape(Duration::from_millis(2));
        let mut text = TextWriter::new(Dialect::OpenMetrics);
        process.write(&mut text);
        let text = text.take();
        assert!(text.contains("# TYPE tenantry_build info\n"));
        assert!(text.contains("tenantry_http_requests_total{code=\"200\",page=\"/metrics\"} 1\n"));
        assert!(text.contains("tenantry_scrape_seconds_bucket{le=\"0.005\"} 1\n"));
        assert!(text.contains("tenantry_scrape_seconds_bucket{le=\"+Inf\"} 1\n"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_tells_memory_and_descriptors() {
        let usage = usage().unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.open_fds >= 3 && usage.threads >= 1);
    }
}
